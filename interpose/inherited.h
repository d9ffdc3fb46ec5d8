// Locks on descriptors that came from elsewhere. The shell's `( flock 9; work ) 9>file` takes the lock in flock(1), on
// a descriptor that it inherited, and flock(1) exits at once: the holder is a shell that never called a lock function.
//
// - Whoever takes a lock on a descriptor that may be shared (it was open when the process image began to record, or
// when
//   it last forked) looks which of its ancestors and children share the description, records each as a `sharer`, and
//   publishes the lock in the spool's header. kcmp(2) tells; where it may not, a flock's line in /proc/PID/fdinfo/FD
//   does, which names the taker. A supervisor looks for all others.
// - Every process of the session tests the header's 64-bit mask of descriptor numbers where it closes, forks, execs or
//   exits. On a hit it looks at its own descriptor and, if the published lock hangs on it, tracks it from then on.
// - Over exec and spawn the tracked descriptors ride behind the session's name in PLANLOOP_SESSION
//   (`name!pid.image;fd.description.file;...`, with a `p` behind those through which POSIX locks were taken), so that
//   the next image knows what it holds before it opens anything else.
//
// Signals: all async-signal-safe. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_INHERITED_H
#define PLANLOOP_INTERPOSE_INHERITED_H

#include <cstddef>
#include <cstdint>

#include "interpose/attach.h"
#include "interpose/descriptors.h"
#include "interpose/proc_files.h"

namespace planloop::shim {

// The image that exec'd or spawned this one, if it said so.
struct InheritedImage {
    std::int32_t pid = 0;
    std::uint32_t image = 0;
};
InheritedImage inherited_image() noexcept;

// Called by the constructor: starts to track what the environment says was inherited.
void adopt_from_environment() noexcept;

// Whether two descriptors of this process refer to one description, as far as kcmp(2) may tell.
bool same_description(int fd, int other) noexcept;

// The number of the description of `fd`, open on this file, if another tracked descriptor of this process shares it.
std::uint32_t description_of_copy(int fd, std::uint64_t device, std::uint64_t inode) noexcept;

// What `fd`, open on this file, was published as, if the lock that hangs on it is a published one.
Identity shared_identity(int fd, std::uint64_t device, std::uint64_t inode) noexcept;
// The file of `fd` if it was published under this number: perhaps a share of a description that is not locked just now.
std::uint32_t file_of_published(int fd) noexcept;

// After a lock was taken on `fd`: finds and records the relatives that share the description, and publishes it.
void look_for_sharers(Thread &me, int fd, Identity identity, wire::Family family) noexcept;

// Tracks `fd` if a published lock hangs on it.
bool adopt(int fd) noexcept;
// The same for all descriptors; true when the process then has tracked descriptors.
bool adopt_all() noexcept;

// Appends "pid.image;fd…" as told above for the tracked descriptors that a new image would get, as many as it has room
// for in Settings::inherited; false: there are none.
bool append_inherited(Thread &me, Text &text) noexcept;

}  // namespace planloop::shim

#endif
