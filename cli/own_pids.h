// Which process is meant by a pid in a recording: a process tells the one that it has in its own PID namespace, where
// it may have another than here.
//
// Threads: safe. Cost: reads /proc/PID/status of every process.
#ifndef PLANLOOP_CLI_OWN_PIDS_H
#define PLANLOOP_CLI_OWN_PIDS_H

#include <sys/types.h>

#include <unordered_map>

namespace planloop::cli {

using OwnPids = std::unordered_multimap<pid_t, pid_t>;

// The pids here of all processes, by the pid that each has for itself (proc(5), the last of NSpid).
OwnPids pids_by_own_pid();

}  // namespace planloop::cli

#endif
