// What a program that dies by SIGSEGV, SIGABRT, SIGBUS, SIGFPE or SIGILL leaves behind: where it was, and which locks
// it had. It then dies as it would have, by the same signal, with the same status and the same core.
//
//   planloop::capture_crashes(session);       // at the start of main, for the program that opts in
//   planloop dev run --capture-crashes -- …   // for one that does not know of us, by the preloaded library
//
// The handler makes async-signal-safe calls only (signal-safety(7): open, write, read, close, clock_gettime and the
// like, no allocation, no lock), on a stack of its own where the thread has one, and writes wire/crash_dump.h's format
// to `errors/.crash/`: registers, a copy of the top of the stack, /proc/self/maps, locks held and awaited. Nothing is
// unwound there. The first command that reads the session's errors (planloop dev errors …) walks that stack with the
// modules' own unwind tables, names it, and writes `{trace_id}_error.json` with `stack_trace_of` = `signal`; what
// cannot be named by then (a module that was replaced) stays module and offset.
//
// A handler that the program had before is called after ours; one that it installs later replaces ours, and is right
// to. Where the signal was ignored, or the program has its own handler when the preloaded library comes to install one,
// nothing is installed.
//
// Errors: Result. Threads: call it once, before other threads; a crash in any thread is captured, once. Each thread
// that may overflow its stack needs a sigaltstack(2) of its own: the calling thread gets one.
#ifndef PLANLOOP_LOCKCORE_CRASH_CAPTURE_H
#define PLANLOOP_LOCKCORE_CRASH_CAPTURE_H

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/thread_locks.h"

namespace planloop {

Result<void> capture_crashes(const Session &session);

// What the session's lock events tell of a process that crashed; for programs that are only traced.
struct ProcessAtCrash {
    std::string trace_id, operation;  // empty: not known
    ThreadLocks locks;
};
using TellProcess = std::function<ProcessAtCrash(std::int32_t pid, std::int32_t tid, std::int64_t utc_ns)>;

// Makes error reports of what crashed programs left in the session; gives the paths of the new ones. Safe to be called
// by several programs at once.
std::vector<std::string> name_crashes(const Session &session, const TellProcess &tell = {});

}  // namespace planloop

#endif
