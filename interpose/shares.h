// Descriptions that several processes share. The shell's `( flock 9; work ) 9>file` takes the lock in flock(1), on a
// descriptor that it inherited, and flock(1) exits at once: the holder is a shell that never called a lock function.
//
// - A descriptor may be shared if it was open when the image began, when it last made a child, or when it went over a
//   socket, or if it is a copy of such a one (descriptors.h). Before the first flock or OFD call on one, the caller
//   looks into the session's share table (wire/share_table.h) whether the description has a number already, and if not
//   gives it one there; after it, looks which ancestors and descendants share it and records each as a `sharer`.
// - From then on every process of the session, before it closes a descriptor that may be shared, copies it, forks,
//   execs or exits, finds out by the table whether it has the description, and says so. So no end is missed, whether or
//   not anybody knew that it shares; who does nothing meanwhile is found by a supervisor.
//
// Signals: all async-signal-safe. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_SHARES_H
#define PLANLOOP_INTERPOSE_SHARES_H

#include <cstdint>

#include "interpose/attach.h"
#include "interpose/descriptors.h"

namespace planloop::shim {

// Of this process, see share_table.h; asked once.
std::uint32_t pid_namespace() noexcept;

// Whether two descriptors of this process refer to one description, as far as kcmp(2) may tell.
bool same_description(int fd, int other) noexcept;

// The number of the description of `fd`, open on this file, if another tracked descriptor of this process shares it.
std::uint32_t description_of_copy(int fd, std::uint64_t device, std::uint64_t inode) noexcept;

// Tracks the descriptors of this process that share the description of `fd`, which is tracked, and records them.
void track_copies(Thread &me, int fd) noexcept;

// Before a flock or OFD call on `fd`, which is tracked and may be shared: its number in the share table, a new row if
// there is none.
Identity name_description(Thread &me, int fd) noexcept;

// After such a call succeeded: finds and records the relatives that share it.
void look_for_sharers(Thread &me, int fd, wire::Family family) noexcept;

// Tracks `fd` and its copies if the share table has their description, and records that this process shares it, with
// those of its descendants that do.
bool adopt(int fd) noexcept;
// The same for all descriptors; true when the process then has tracked descriptors.
bool adopt_all() noexcept;

// For who cannot open it by its name later on.
void open_share_table() noexcept;
// Puts a tracked descriptor into the share table, so that processes which cannot be told otherwise find out.
void publish(int fd) noexcept;
void publish_all() noexcept;
// A child that shares this process's tracked descriptors, or a new number of one: known to the trace, so no news.
void share_with_child(std::int32_t child) noexcept;
void share_copy(int fd) noexcept;
// `fd` is about to be closed.
void unshare(int fd, const Descriptor &descriptor) noexcept;

}  // namespace planloop::shim

#endif
