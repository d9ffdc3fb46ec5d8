// Starts the program that is recorded as its own parent would have: same process group, signal mask, dispositions,
// descriptors and limits; no shell in between. Must be called while this process has one thread.
#ifndef PLANLOOP_CLI_CHILD_H
#define PLANLOOP_CLI_CHILD_H

#include <signal.h>
#include <sys/types.h>

#include <string>
#include <utility>
#include <vector>

#include "lockcore/result.h"

namespace planloop::cli {

using Environment = std::vector<std::pair<std::string, std::string>>;  // what is added or replaced

// What this process had before it prepared itself to supervise.
struct SignalState {
    sigset_t mask{};
    struct sigaction child {};  // disposition of SIGCHLD
};

struct Child {
    pid_t pid = -1;
    int pidfd = -1;      // -1: the kernel gave none
    int exec_error = 0;  // not 0: it was not started, and is gone
};

// Blocks `signals`, which a supervisor reads from a signalfd, and makes children waitable even where SIGCHLD was
// ignored.
SignalState take_signals(const sigset_t &signals);

Result<Child> start_child(const std::vector<std::string> &program, const Environment &environment,
                          const SignalState &before);

// Becomes the program: for when nothing can be recorded. Comes back only if that failed, with errno.
int become(const std::vector<std::string> &program);

// Ends this process as `wait_status` says its child ended: with the same status, or by the same signal and without a
// second core dump. Runs no destructors; nothing may be left in a buffer.
[[noreturn]] void end_like(int wait_status);

}  // namespace planloop::cli

#endif
