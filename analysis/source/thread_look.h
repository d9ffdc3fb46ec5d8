// What the kernel says a thread does right now, from /proc: is it inside a lock call, does it wait for a child?
//
// A lock that was granted a moment ago looks like a wait in a recording until its end is stamped, so whoever tells of
// a circular wait that is still in force looks here first. Cost: two or three small files for each thread; nothing that
// takes a lock of the whole machine (/proc/locks does).
//
// /proc/PID/task/TID/syscall needs the right to trace the process, wchan the right to read it; what may not be read is
// `unknown`. Threads: pure functions. Errors: none.
#ifndef PLANLOOP_ANALYSIS_SOURCE_THREAD_LOOK_H
#define PLANLOOP_ANALYSIS_SOURCE_THREAD_LOOK_H

#include <cstdint>
#include <vector>

#include "analysis/report.h"

namespace planloop::analysis {

enum class Doing : std::uint8_t {
    unknown,     // it sleeps, and where may not be looked at
    lock_wait,   // it sleeps in flock, F_SETLKW or F_OFD_SETLKW
    child_wait,  // it sleeps in wait4 or waitid
    other,       // it runs, or sleeps elsewhere
    gone,        // there is no such thread
};

struct ThreadLook {
    Doing doing = Doing::unknown;
    std::int32_t fd = -1;        // lock_wait: of the call; -1: not known
    std::int32_t child = -1;     // child_wait: as waitpid(2) takes it; -1: any, or not known
    std::uint64_t switches = 0;  // how often it left the processor: unchanged between two looks means that it slept on
};

ThreadLook look_at_thread(std::int32_t pid, std::int32_t tid);

// Whether every participant of a circular wait that was found in a recording is still inside its lock call. A thread
// that may not be looked into counts as waiting; what another PID namespace calls by these numbers must not be asked.
bool still_waiting(const std::vector<Participant> &participants);

}  // namespace planloop::analysis

#endif
