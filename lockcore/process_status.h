// What /proc says about a process. Threads: safe. Signals: not safe. Errors: a process that is gone or hidden has no
// status.
#ifndef PLANLOOP_LOCKCORE_PROCESS_STATUS_H
#define PLANLOOP_LOCKCORE_PROCESS_STATUS_H

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace planloop {

struct ProcessStatus {
    std::string name;  // of the program, cut to 15 bytes by the kernel
    char state = 0;    // as ps shows it: R, S, D, T, Z …
    pid_t parent = 0;
    std::uint64_t start_time = 0;  // clock ticks since boot; with the pid it names a process for good
    std::uint64_t image = 0;  // where its stack begins: with random addresses another one after each exec; 0: hidden

    bool ended() const { return state == 'Z' || state == 'X'; }  // its files, and their locks, are gone already
};

// proc_pid_stat(5), fields 2, 3, 4, 22 and 28, of the text of a /proc/PID/stat.
std::optional<ProcessStatus> parse_process_status(std::string_view text);
std::optional<ProcessStatus> process_status(pid_t pid);
// Of the caller, also where /proc shows another PID namespace.
std::optional<ProcessStatus> own_process_status();

// The arguments that a /proc/PID/cmdline holds, parted by spaces.
std::string spaced_arguments(std::string cmdline);
// Those it was started with, the first 4096 bytes; empty when it is gone or hidden.
std::string command_line_of(pid_t pid);
std::string own_command_line();

// Whether that very process still runs; a zombie does not. `start_time` 0: any process. One that cannot be looked at
// (no descriptor left to do it with, a hidden /proc) does, as long as its number is in use.
bool process_runs(pid_t pid, std::uint64_t start_time);

}  // namespace planloop

#endif
