// What an actor does with files and descriptors.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "lock_actor/actor.h"

namespace lock_actor {
namespace {

// open PATH [rdonly|opath] [cloexec]
Answer do_open(const Words &words) {
    const int access = has(words, "rdonly") ? O_RDONLY : has(words, "opath") ? O_PATH : O_RDWR | O_CREAT;
    const int flags = access | (has(words, "cloexec") ? O_CLOEXEC : 0);
    return measured([&] { return open(words.at(1).c_str(), flags, 0600); });
}

Answer do_close(const Words &words) {
    const int fd = fd_of(words, 1);
    return measured([&] { return close(fd); });
}

Answer do_close_range(const Words &words) {
    const auto first = static_cast<unsigned>(number(words, 1));
    const auto last = static_cast<unsigned>(number(words, 2));
    return measured([&] { return close_range(first, last, 0); });
}

Answer do_closefrom(const Words &words) {
    const int first = fd_of(words, 1);
    return measured([&] {
        // All but the connection, which lies high.
        if (words[0] == "close_range_to_control")
            return close_range(static_cast<unsigned>(first), kLowestControlFd - 1, 0);
        if (words[0] == "closefrom_above_control") {
            closefrom(first);
            return 0;
        }
        const pid_t child = fork();  // closefrom(3) has no upper end, so a child without a connection calls it
        if (child == 0) {
            closefrom(first);
            pause();
            _exit(0);
        }
        return static_cast<int>(child);
    });
}

// limit COUNT: descriptors that the process may have
Answer do_limit(const Words &words) {
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = static_cast<rlim_t>(number(words, 1));
    return measured([&] { return setrlimit(RLIMIT_NOFILE, &limit); });
}

sockaddr_un address_of(const std::string &path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    return address;
}

// Sends a descriptor, or receives one into `fd`.
int pass(int connection, int &fd, bool send) {
    char byte = 0;
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
    message.msg_iov = &data;
    message.msg_iovlen = 1;
    message.msg_control = control;
    message.msg_controllen = sizeof(control);
    cmsghdr *const part = CMSG_FIRSTHDR(&message);
    if (send) {
        part->cmsg_level = SOL_SOCKET;
        part->cmsg_type = SCM_RIGHTS;
        part->cmsg_len = CMSG_LEN(sizeof(int));
        std::memcpy(CMSG_DATA(part), &fd, sizeof(fd));
        return sendmsg(connection, &message, 0) == 1 ? 0 : -1;
    }
    if (recvmsg(connection, &message, 0) != 1 || message.msg_controllen < CMSG_LEN(sizeof(int))) return -1;
    std::memcpy(&fd, CMSG_DATA(part), sizeof(fd));
    return fd;
}

// receive PATH: listens there and takes a descriptor.  send FD PATH: gives one to who listens there.
Answer do_receive(const Words &words) {
    const int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = address_of(words.at(1));
    if (bind(listener, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0) return {};
    listen(listener, 1);
    const int connection = accept4(listener, nullptr, nullptr, SOCK_CLOEXEC);
    close(listener);
    int fd = -1;
    const Answer answer = measured([&] { return pass(connection, fd, false); });
    close(connection);
    return answer;
}

Answer do_send(const Words &words) {
    const int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const sockaddr_un address = address_of(words.at(2));
    int fd = fd_of(words, 1);
    if (connect(connection, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0) return {};
    const Answer answer = measured([&] { return pass(connection, fd, true); });
    close(connection);
    return answer;
}

// park FD: sends it into a socket pair of this process's own, where it stays in flight.  fetch: receives it.
int *parking() {
    constexpr int kParkingFd = 800;  // below the connection: forked children keep it
    static int ends[2] = {-1, -1};
    if (ends[0] == -1 && socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0) {
        for (int &end : ends) {
            const int low = end;
            end = fcntl(low, F_DUPFD_CLOEXEC, kParkingFd);
            close(low);
        }
    }
    return ends;
}

Answer do_park(const Words &words) {
    int fd = fd_of(words, 1);
    const int *ends = parking();
    return measured([&] { return pass(ends[0], fd, true); });
}

Answer do_fetch(const Words & /*words*/) {
    int fd = -1;
    const int *ends = parking();
    return measured([&] { return pass(ends[1], fd, false); });
}

// map FD: the first page of the file, which must not be empty.  unmap
Answer do_map(const Words &words) {
    constexpr std::size_t kPageBytes = 4096;
    static void *mapped = nullptr;
    const int fd = fd_of(words, 1);
    if (words[0] == "unmap") return measured([] { return munmap(mapped, kPageBytes); });
    return measured([&] {
        mapped = mmap(nullptr, kPageBytes, PROT_READ, MAP_SHARED, fd, 0);
        return mapped == MAP_FAILED ? -1 : 0;
    });
}

// freopen FD PATH: closes the descriptor and opens another file
Answer do_freopen(const Words &words) {
    FILE *const stream = fdopen(fd_of(words, 1), "r+");
    return measured([&] {
        return stream == nullptr ? -1 : freopen(words.at(2).c_str(), "r", stream) == nullptr ? -1 : 0;
    });
}

// fclose FD: through a stream
Answer do_fclose(const Words &words) {
    FILE *const stream = fdopen(fd_of(words, 1), "r+");
    return measured([&] { return stream == nullptr ? -1 : fclose(stream); });
}

Answer do_dup(const Words &words) {
    const int fd = fd_of(words, 1);
    return measured([&] { return dup(fd); });
}

Answer do_dup2(const Words &words) {
    const int from = fd_of(words, 1);
    const int to = fd_of(words, 2);
    return measured([&] { return dup2(from, to); });
}

Answer do_dup3(const Words &words) {
    const int from = fd_of(words, 1);
    const int to = fd_of(words, 2);
    return measured([&] { return dup3(from, to, O_CLOEXEC); });
}

// dupfd FD LOWEST [cloexec]
Answer do_dupfd(const Words &words) {
    const int fd = fd_of(words, 1);
    const int lowest = fd_of(words, 2);
    const int command = has(words, "cloexec") ? F_DUPFD_CLOEXEC : F_DUPFD;
    return measured([&] { return fcntl(fd, command, lowest); });
}

Answer do_lseek(const Words &words) {
    const int fd = fd_of(words, 1);
    const off_t to = number(words, 2);
    return measured([&] { return lseek(fd, to, SEEK_SET); });
}

Answer do_truncate(const Words &words) {
    const int fd = fd_of(words, 1);
    const off_t size = number(words, 2);
    return measured([&] { return ftruncate(fd, size); });
}

}  // namespace

const std::vector<Command> &descriptor_commands() {
    static const std::vector<Command> commands = {
        {"open", do_open},
        {"close", do_close},
        {"close_range", do_close_range},
        {"fclose", do_fclose},
        {"freopen", do_freopen},
        {"dup", do_dup},
        {"dup2", do_dup2},
        {"dup3", do_dup3},
        {"dupfd", do_dupfd},
        {"lseek", do_lseek},
        {"truncate", do_truncate},
        {"closefrom", do_closefrom},
        {"close_range_to_control", do_closefrom},
        {"closefrom_above_control", do_closefrom},
        {"park", do_park},
        {"fetch", do_fetch},
        {"map", do_map},
        {"unmap", do_map},
        {"limit", do_limit},
        {"send", do_send},
        {"receive", do_receive},
    };
    return commands;
}

}  // namespace lock_actor
