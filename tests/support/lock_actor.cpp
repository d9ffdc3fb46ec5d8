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
#include <sys/file.h>
#include <sys/socket.h>
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

// open PATH [rdonly] [cloexec]
Answer do_open(const Words &words) {
    const int access = has(words, "rdonly") ? O_RDONLY : O_RDWR | O_CREAT;
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

Answer do_exec(const Words & /*words*/) {
    return measured([] {
        replace_image();
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
    {"open", do_open},     {"flock", do_flock},
    {"fcntl", do_fcntl},   {"lockf", do_lockf},
    {"close", do_close},   {"close_range", do_close_range},
    {"fclose", do_fclose}, {"freopen", do_freopen},
    {"dup", do_dup},       {"dup2", do_dup2},
    {"dup3", do_dup3},     {"dupfd", do_dupfd},
    {"lseek", do_lseek},   {"truncate", do_truncate},
    {"hold", do_hold},     {"fork", do_fork},
    {"spawn", do_fork},    {"vspawn", do_fork},
    {"exec", do_exec},     {"failing_exec", do_failing_exec},
    {"thread", do_thread}, {"exit", do_exit},
    {"_exit", do_exit},    {"quick_exit", do_exit},
    {"abort", do_exit},    {"wait", do_wait},
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
