// Under `dev run --capture-crashes` (PLANLOOP_CAPTURE_CRASHES=1): a program that dies by a fault leaves a dump
// (lockcore/wire/crash_dump.h) in the session and dies as it would have, by the same signal, with the same core.
//
// Installed by the constructor, where the program's own initialisation has left the signal alone; a handler that the
// program installs later replaces ours. No stack of its own is given to the handler, so a stack overflow is not seen.
#ifndef PLANLOOP_INTERPOSE_CRASH_H
#define PLANLOOP_INTERPOSE_CRASH_H

namespace planloop::shim {

void watch_crashes() noexcept;

}  // namespace planloop::shim

#endif
