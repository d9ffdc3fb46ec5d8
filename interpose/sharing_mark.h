// Whether any process of the session shares a lock's description with another, asked without opening the recording.
//
// A process that came by open files (a job of CI has /dev/null under some number) may share one on which somebody takes
// a lock, now or later, and then has to say so before it closes it, forks, execs or exits. The spool's header tells
// when that is about, but to open it takes a twelfth of the time that a process takes to start. So whoever puts the
// first row into a spool's share table leaves an empty file in the spool's folder as well, before its lock call, and
// until that is there such a process looks for it each time it matters: one system call, which takes no descriptor. A
// process that looks often opens the spool after all, and very often makes it. The mark is not removed: one too many
// costs that much.
//
// Signals: async-signal-safe. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_SHARING_MARK_H
#define PLANLOOP_INTERPOSE_SHARING_MARK_H

namespace planloop::shim {

// This image came by descriptors that others may lock: from now on look_whether_shared(), declared in descriptors.h,
// is asked. By the constructor.
void expect_shares() noexcept;

// Leaves the mark; false when that cannot be done.
bool mark_sharing() noexcept;

}  // namespace planloop::shim

#endif
