#include "cli/child.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace planloop::cli {
namespace {

std::vector<char *> pointers(const std::vector<std::string> &words) {
    std::vector<char *> out;
    out.reserve(words.size() + 1);
    for (const std::string &word : words) out.push_back(const_cast<char *>(word.c_str()));
    out.push_back(nullptr);
    return out;
}

[[noreturn]] void run_child(const std::vector<std::string> &program, const Environment &environment,
                            const SignalState &before, int report_fd) {
    for (const auto &[name, value] : environment) ::setenv(name.c_str(), value.c_str(), 1);
    ::sigaction(SIGCHLD, &before.child, nullptr);
    ::sigprocmask(SIG_SETMASK, &before.mask, nullptr);
    const int error = become(program);
    static_cast<void>(::write(report_fd, &error, sizeof(error)) == 0);
    ::_exit(127);
}

}  // namespace

SignalState take_signals(const sigset_t &signals) {
    SignalState before;
    struct sigaction usual {};
    usual.sa_handler = SIG_DFL;
    ::sigaction(SIGCHLD, &usual, &before.child);
    ::sigprocmask(SIG_BLOCK, &signals, &before.mask);
    return before;
}

int become(const std::vector<std::string> &program) {
    std::vector<char *> words = pointers(program);
    ::execvp(words[0], words.data());
    return errno;
}

Result<Child> start_child(const std::vector<std::string> &program, const Environment &environment,
                          const SignalState &before) {
    int report[2];
    if (::pipe2(report, O_CLOEXEC) != 0) return Error{fmt::format("cannot make a pipe: {}", std::strerror(errno))};
    Child child;
    child.pid = ::fork();
    if (child.pid == 0) run_child(program, environment, before, report[1]);
    const int fork_error = errno;
    ::close(report[1]);
    if (child.pid < 0) {
        ::close(report[0]);
        return Error{fmt::format("cannot start {}: {}", program[0], std::strerror(fork_error))};
    }
    // Not reaped yet, so the pid is still this child's even if it is gone.
    child.pidfd = static_cast<int>(::syscall(SYS_pidfd_open, child.pid, 0));
    ssize_t got = 0;
    do {
        got = ::read(report[0], &child.exec_error, sizeof(child.exec_error));  // ends at exec: the pipe closes
    } while (got < 0 && errno == EINTR);
    ::close(report[0]);
    if (got != static_cast<ssize_t>(sizeof(child.exec_error))) {
        child.exec_error = 0;
        return child;
    }
    while (::waitpid(child.pid, nullptr, 0) < 0 && errno == EINTR) {
    }
    if (child.pidfd >= 0) ::close(child.pidfd);
    child.pidfd = -1;
    return child;
}

void end_like(int wait_status) {
    if (!WIFSIGNALED(wait_status)) ::_exit(WEXITSTATUS(wait_status));
    const int number = WTERMSIG(wait_status);
    // A core pattern that is a pipe ignores RLIMIT_CORE, but never dumps what is not dumpable.
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
    ::signal(number, SIG_DFL);
    sigset_t only{};
    ::sigemptyset(&only);
    ::sigaddset(&only, number);
    ::sigprocmask(SIG_UNBLOCK, &only, nullptr);
    ::kill(::getpid(), number);
    ::_exit(128 + number);  // a signal that ends nobody
}

}  // namespace planloop::cli
