// Who a process is, for people who will read the trace: pid and start time, parent, user, command line, executable,
// folder, trace id. Written once for each process image that records, and for one that only shares a lock.
// Async-signal-safe.
#ifndef PLANLOOP_INTERPOSE_INTRODUCTION_H
#define PLANLOOP_INTERPOSE_INTRODUCTION_H

#include "interpose/attach.h"
#include "interpose/descriptors.h"

namespace planloop::shim {

// This process image; its number and pid are known. `parent_image`: of the process that forked it, 0: not forked by
// one.
void introduce_self(Thread &me, std::uint32_t parent_image) noexcept;

// The same once more, from what was read then: see ring.h.
void repeat_introduction(Thread &me) noexcept;

// Another process was seen at `seen` (ticks) to have the description behind `fd` here as its descriptor `there`.
struct ForeignDescriptor {
    std::int32_t pid;
    int fd;
};
void introduce_sharer(Thread &me, ForeignDescriptor there, std::uint64_t seen, wire::Family family, int fd,
                      Identity identity) noexcept;

}  // namespace planloop::shim

#endif
