// How an actor makes others, becomes another, and ends.
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <spawn.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstddef>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "lock_actor/actor.h"

namespace lock_actor {
namespace {

void replace_image() {
    execl("/proc/self/exe", "lock_actor", socket_path().c_str(), nullptr);
}

// fork: the child goes on with what it inherited.  spawn: it starts afresh as a new program image.
// vspawn: the same through vfork.
Answer do_fork(const Words &words) {
    return measured([&]() -> long {
        if (words[0] == "vspawn") {
            const char *const socket_name = socket_path().c_str();
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
    std::string socket_name = socket_path();
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
        std::string socket_name = socket_path();
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

}  // namespace

const std::vector<Command> &process_commands() {
    static const std::vector<Command> commands = {
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
        {"clone", do_clone},
        {"clone_vm", do_clone},
        {"sys_fork", do_clone},
        {"sys_clone", do_clone},
        {"sys_clone3", do_clone},
        {"spawn_moving", do_spawn_moving},
        {"sys_exec", do_exec},
        {"sys_execveat", do_exec},
    };
    return commands;
}

}  // namespace lock_actor
