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
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <sstream>
#include <string>
#include <vector>

#include "lock_actor/actor.h"

namespace lock_actor {
namespace {

std::string test_socket;

Answer obey(const std::string &line) {
    std::istringstream stream(line);
    Words words;
    for (std::string word; stream >> word;) words.push_back(word);
    for (const auto *commands : {&lock_commands(), &descriptor_commands(), &process_commands()}) {
        for (const Command &command : *commands) {
            if (!words.empty() && words[0] == command.name) return command.run(words);
        }
    }
    std::fprintf(stderr, "lock_actor: unknown command '%s'\n", line.c_str());
    _exit(3);
}

}  // namespace

std::int64_t now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

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

const std::string &socket_path() {
    return test_socket;
}

int connect_to_test() {
    const int near = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    test_socket.copy(address.sun_path, sizeof(address.sun_path) - 1);
    if (connect(near, reinterpret_cast<const sockaddr *>(&address), sizeof(address)) != 0) {
        std::perror("lock_actor: connect");
        _exit(3);
    }
    const int control = fcntl(near, F_DUPFD_CLOEXEC, kLowestControlFd);
    close(near);
    dprintf(control, "hello %d %d\n", getpid(), gettid());
    return control;
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

}  // namespace lock_actor

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: lock_actor SOCKET\n");
        return 3;
    }
    lock_actor::test_socket = argv[1];
    // A handler without SA_RESTART, so that a blocked call comes back with EINTR.
    struct sigaction action = {};
    action.sa_handler = [](int) {};
    sigaction(SIGUSR1, &action, nullptr);
    lock_actor::serve(lock_actor::connect_to_test());
    return 0;
}
