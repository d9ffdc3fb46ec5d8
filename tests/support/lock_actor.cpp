// A program that does, one call at a time, what a test tells it: opens, locks, duplicates, forks, executes itself,
// ends. Tests steer as many of these as they need and know at each moment which call is under way, so that nothing has
// to be timed by sleeping.
//
//   lock_actor SOCKET
//
// Connects to the listening Unix socket, says "hello PID TID" and then serves lines "COMMAND ARGUMENT...". The answer
// is "RESULT ERRNO BEFORE AFTER": what the call returned, errno if that was -1, and CLOCK_MONOTONIC in nanoseconds
// around the call, read as close to it as can be. A forked child, a new thread and a new program image say hello on a
// connection of their own. The connection closed by the test ends the thread that serves it, and with the main thread
// the process.
#include <fcntl.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <shadow.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace {

// The connection is kept out of the way, so that the descriptors of a test are small and predictable.
constexpr int kLowestControlFd = 900;

std::string socket_path;

std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

struct Answer {
    long result = -1;
    int error = 0;
    std::int64_t before = 0;
    std::int64_t after = 0;
};

template <class Call>
Answer measured(Call call) {
    Answer answer;
    answer.before = now_ns();
    errno = 0;
    answer.result = call();
    answer.error = answer.result == -1 ? errno : 0;
    answer.after = now_ns();
    return answer;
}

using Words = std::vector<std::string>;

long number(const Words &words, std::size_t at) {
    return words.size() > at ? std::strtol(words[at].c_str(), nullptr, 0) : 0;
}
int fd_of(const Words &words, std::size_t at) {
    return static_cast<int>(number(words, at));
}
bool has(const Words &words, const char *word) {
    for (const std::string &each : words) {
        if (each == word) return true;
    }
    return false;
}

int connect_to_test() {
    const int near = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    socket_path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    if (connect(near, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0) {
        std::perror("lock_actor: connect");
        _exit(3);
    }
    const int control = fcntl(near, F_DUPFD_CLOEXEC, kLowestControlFd);
    close(near);
    dprintf(control, "hello %d %d\n", getpid(), gettid());
    return control;
}

void serve(int control);

// open PATH [rdonly|opath] [cloexec]
Answer do_open(const Words &words) {
    const int access = has(words, "rdonly") ? O_RDONLY : has(words, "opath") ? O_PATH : O_RDWR | O_CREAT;
    const int flags = access | (has(words, "cloexec") ? O_CLOEXEC : 0);
    return measured([&] { return open(words.at(1).c_str(), flags, 0600); });
}

// flock FD sh|ex|un [nb]
Answer do_flock(const Words &words) {
    const int operation = has(words, "sh") ? LOCK_SH : has(words, "ex") ? LOCK_EX : LOCK_UN;
    const int flags = operation | (has(words, "nb") ? LOCK_NB : 0);
    const int fd = fd_of(words, 1);
    return measured([&] { return flock(fd, flags); });
}

// fcntl FD COMMAND rd|wr|un START LENGTH [cur|end]; COMMAND: setlk setlkw getlk ofd_setlk ofd_setlkw
Answer do_fcntl(const Words &words) {
    const std::string &name = words.at(2);
    const int command = name == "setlk"       ? F_SETLK
                        : name == "setlkw"    ? F_SETLKW
                        : name == "getlk"     ? F_GETLK
                        : name == "ofd_setlk" ? F_OFD_SETLK
                                              : F_OFD_SETLKW;
    struct flock range = {};
    range.l_type = has(words, "rd") ? F_RDLCK : has(words, "wr") ? F_WRLCK : F_UNLCK;
    range.l_whence = has(words, "cur") ? SEEK_CUR : has(words, "end") ? SEEK_END : SEEK_SET;
    range.l_start = number(words, 4);
    range.l_len = number(words, 5);
    const int fd = fd_of(words, 1);
    return measured([&] { return fcntl(fd, command, &range); });
}

// sys_flock and sys_ofd: flock and an OFD lock of the whole file, through syscall(2). FD sh|ex|un [nb]
Answer do_sys_flock(const Words &words) {
    const int operation = has(words, "sh") ? LOCK_SH : has(words, "ex") ? LOCK_EX : LOCK_UN;
    const int flags = operation | (has(words, "nb") ? LOCK_NB : 0);
    const int fd = fd_of(words, 1);
    return measured([&] { return syscall(SYS_flock, fd, flags); });
}
Answer do_sys_ofd(const Words &words) {
    struct flock range = {};
    range.l_type = has(words, "sh") ? F_RDLCK : has(words, "ex") ? F_WRLCK : F_UNLCK;
    const int fd = fd_of(words, 1);
    const int command = has(words, "nb") ? F_OFD_SETLK : F_OFD_SETLKW;
    return measured([&] { return syscall(SYS_fcntl, fd, command, &range); });
}
Answer do_lckpwdf(const Words &words) {
    return measured([&] { return words[0] == "lckpwdf" ? lckpwdf() : ulckpwdf(); });
}

pthread_t waiting_thread;
int waiting_fd = -1;

// waiter FD: a thread waits for a POSIX lock of the whole file.  cancel_waiter: is cancelled, and joined.
Answer do_waiter(const Words &words) {
    waiting_fd = fd_of(words, 1);
    return measured([] {
        return pthread_create(
            &waiting_thread, nullptr,
            [](void *) -> void * {
                struct flock range = {};
                range.l_type = F_WRLCK;
                fcntl(waiting_fd, F_SETLKW, &range);
                return nullptr;
            },
            nullptr);
    });
}
Answer do_cancel_waiter(const Words & /*words*/) {
    return measured([] {
        void *ended = nullptr;
        pthread_cancel(waiting_thread);
        pthread_join(waiting_thread, &ended);
        return ended == PTHREAD_CANCELED ? 0 : -1;
    });
}

// lockf FD lock|tlock|ulock LENGTH
Answer do_lockf(const Words &words) {
    const int command = words.at(2) == "lock" ? F_LOCK : words.at(2) == "tlock" ? F_TLOCK : F_ULOCK;
    const int fd = fd_of(words, 1);
    const off_t length = number(words, 3);
    return measured([&] { return lockf(fd, command, length); });
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

// Keeps what it holds for so many nanoseconds.
Answer do_hold(const Words &words) {
    const long ns = number(words, 1);
    return measured([&] {
        timespec left{ns / 1'000'000'000, ns % 1'000'000'000};
        while (nanosleep(&left, &left) != 0) {
        }
        return 0;
    });
}

void replace_image() {
    execl("/proc/self/exe", "lock_actor", socket_path.c_str(), nullptr);
}

// fork: the child goes on with what it inherited.  spawn: it starts afresh as a new program image.
// vspawn: the same through vfork.
Answer do_fork(const Words &words) {
    return measured([&]() -> long {
        if (words[0] == "vspawn") {
            const char *const socket_name = socket_path.c_str();
            const pid_t child = vfork();
            if (child == 0) {
                execl("/proc/self/exe", "lock_actor", socket_name, nullptr);
                _exit(127);
            }
            return child;
        }
        const pid_t child = fork();
        if (child == 0) {
            if (words[0] == "spawn") {
                replace_image();
                _exit(127);
            }
            close_range(kLowestControlFd, ~0U, 0);
            serve(connect_to_test());
            std::exit(0);
        }
        return child;
    });
}

int serve_as_child(void * /*unused*/) {
    close_range(kLowestControlFd, ~0U, 0);
    serve(connect_to_test());
    std::exit(0);
}

// As fork, by other calls: clone, sys_fork, sys_clone, sys_clone3. And clone_vm: a child in our memory with its own
// descriptors, as posix_spawn makes them, which closes FD and becomes a new program image.
Answer do_clone(const Words &words) {
    constexpr std::size_t kStackBytes = 256 * 1024;
    static char *const stack = new char[kStackBytes];
    char *const top = stack + kStackBytes;
    return measured([&]() -> long {
        if (words[0] == "clone") return clone(serve_as_child, top, SIGCHLD, nullptr);
        if (words[0] == "clone_vm") {
            static int to_close;
            to_close = fd_of(words, 1);
            return clone(
                [](void *) {
                    close(to_close);
                    replace_image();
                    _exit(127);
                    return 0;
                },
                top, CLONE_VM | CLONE_VFORK | SIGCHLD, nullptr);
        }
        clone_args arguments{};
        arguments.exit_signal = SIGCHLD;
        const long child = words[0] == "sys_fork"     ? syscall(SYS_fork)
                           : words[0] == "sys_clone3" ? syscall(SYS_clone3, &arguments, sizeof(arguments))
                                                      : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
        if (child == 0) serve_as_child(nullptr);
        return child;
    });
}

// spawn_moving FROM TO: posix_spawn of a new image in which TO is what FROM is here, and FROM is closed.
Answer do_spawn_moving(const Words &words) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd_of(words, 1), fd_of(words, 2));
    posix_spawn_file_actions_addclose(&actions, fd_of(words, 1));
    std::string name = "lock_actor";
    std::string socket_name = socket_path;
    char *const arguments[] = {name.data(), socket_name.data(), nullptr};
    pid_t child = -1;
    const Answer answer = measured(
        [&] { return posix_spawn(&child, "/proc/self/exe", &actions, nullptr, arguments, environ) == 0 ? child : -1; });
    posix_spawn_file_actions_destroy(&actions);
    return answer;
}

// exec, and the same through syscall(2): sys_exec, sys_execveat
Answer do_exec(const Words &words) {
    return measured([&] {
        std::string name = "lock_actor";
        std::string socket_name = socket_path;
        char *const arguments[] = {name.data(), socket_name.data(), nullptr};
        constexpr char kPath[] = "/proc/self/exe";
        if (words[0] == "sys_exec") syscall(SYS_execve, kPath, arguments, environ);
        if (words[0] == "sys_execveat") syscall(SYS_execveat, AT_FDCWD, kPath, arguments, environ, 0);
        if (words[0] == "exec") replace_image();
        return -1;
    });
}
// Answers -1 when there is nothing to execute, and the caller goes on.
Answer do_failing_exec(const Words & /*words*/) {
    return measured([] { return execl("/nonexistent/program", "program", nullptr); });
}

Answer do_thread(const Words & /*words*/) {
    return measured([] {
        std::thread([] { serve(connect_to_test()); }).detach();
        return 0;
    });
}

// exit STATUS | _exit STATUS | quick_exit STATUS | abort
Answer do_exit(const Words &words) {
    const int status = fd_of(words, 1);
    if (words[0] == "exit") std::exit(status);
    if (words[0] == "quick_exit") std::quick_exit(status);
    if (words[0] == "abort") std::abort();
    _exit(status);
}

Answer do_wait(const Words &words) {
    const auto child = static_cast<pid_t>(number(words, 1));
    return measured([&] {
        int status = 0;
        return waitpid(child, &status, 0) == child ? status : -1;
    });
}

struct Command {
    const char *name;
    Answer (*run)(const Words &);
};
constexpr Command kCommands[] = {
    {"open", do_open},
    {"flock", do_flock},
    {"fcntl", do_fcntl},
    {"lockf", do_lockf},
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
    {"hold", do_hold},
    {"fork", do_fork},
    {"spawn", do_fork},
    {"vspawn", do_fork},
    {"exec", do_exec},
    {"failing_exec", do_failing_exec},
    {"thread", do_thread},
    {"exit", do_exit},
    {"_exit", do_exit},
    {"quick_exit", do_exit},
    {"abort", do_exit},
    {"wait", do_wait},
    {"sys_flock", do_sys_flock},
    {"sys_ofd", do_sys_ofd},
    {"lckpwdf", do_lckpwdf},
    {"ulckpwdf", do_lckpwdf},
    {"waiter", do_waiter},
    {"cancel_waiter", do_cancel_waiter},
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
    {"clone", do_clone},
    {"clone_vm", do_clone},
    {"sys_fork", do_clone},
    {"sys_clone", do_clone},
    {"sys_clone3", do_clone},
    {"spawn_moving", do_spawn_moving},
    {"sys_exec", do_exec},
    {"sys_execveat", do_exec},
};

Answer obey(const std::string &line) {
    std::istringstream stream(line);
    Words words;
    for (std::string word; stream >> word;) words.push_back(word);
    for (const Command &command : kCommands) {
        if (!words.empty() && words[0] == command.name) return command.run(words);
    }
    std::fprintf(stderr, "lock_actor: unknown command '%s'\n", line.c_str());
    _exit(3);
}

void serve(int control) {
    std::string line;
    char next = 0;
    while (true) {
        const ssize_t got = read(control, &next, 1);
        if (got == -1 && errno == EINTR) continue;
        if (got != 1) break;
        if (next != '\n') {
            line.push_back(next);
            continue;
        }
        const Answer answer = obey(line);
        dprintf(control, "%ld %d %lld %lld\n", answer.result, answer.error, static_cast<long long>(answer.before),
                static_cast<long long>(answer.after));
        line.clear();
    }
    close(control);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: lock_actor SOCKET\n");
        return 3;
    }
    socket_path = argv[1];
    // A handler without SA_RESTART, so that a blocked call comes back with EINTR.
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    serve(connect_to_test());
    return 0;
}
