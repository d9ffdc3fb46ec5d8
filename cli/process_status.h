// What /proc says about a process. Threads: safe. Errors: a process that is gone or hidden has no status.
#ifndef PLANLOOP_CLI_PROCESS_STATUS_H
#define PLANLOOP_CLI_PROCESS_STATUS_H

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>

namespace planloop::cli {

struct ProcessStatus {
    char state = 0;  // as ps shows it: R, S, D, T, Z …
    pid_t parent = 0;
    std::uint64_t start_time = 0;  // clock ticks since boot; with the pid it names a process for good
};

// The arguments it was started with, parted by spaces; empty when it is gone or hidden.
std::string command_line(pid_t pid);

// proc_pid_stat(5), fields 3, 4 and 22.
std::optional<ProcessStatus> process_status(pid_t pid);

// Whether that very process still runs; a zombie has closed its files and does not. `start_time` 0: any process.
bool process_runs(pid_t pid, std::uint64_t start_time);

}  // namespace planloop::cli

#endif
