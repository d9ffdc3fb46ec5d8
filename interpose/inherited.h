// Locks on descriptors that came from elsewhere. The shell's `( flock 9; work ) 9>file` takes the lock in flock(1), on
// a descriptor that it inherited, and flock(1) exits at once: the holder is a shell that never called a lock function.
//
// - Whoever takes a lock on a descriptor that was open when it began looks which of its ancestors share the
//   description (their /proc/PID/fdinfo/FD names the lock), records each as a `sharer`, and publishes the lock in the
//   spool's header.
// - Every process of the session tests the header's 64-bit mask of descriptor numbers where it closes, forks, execs or
//   exits. On a hit it looks at its own descriptor and, if the published lock hangs on it, tracks it from then on.
// - Over exec and spawn the tracked descriptors ride behind the session's name in PLANLOOP_SESSION
//   (`name!pid.image;fd.description.file;...`), so that the next image knows what it holds before it opens anything
//   else.
//
// Signals: all async-signal-safe. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_INHERITED_H
#define PLANLOOP_INTERPOSE_INHERITED_H

#include <cstddef>
#include <cstdint>

#include "interpose/attach.h"
#include "interpose/descriptors.h"

namespace planloop::shim {

// The image that exec'd or spawned this one, if it said so.
struct InheritedImage {
    std::int32_t pid = 0;
    std::uint32_t image = 0;
};
InheritedImage inherited_image() noexcept;

// Called by the constructor: starts to track what the environment says was inherited, and hides it from the program.
void adopt_from_environment() noexcept;

// What `fd`, open on this file, was published as, if the lock that hangs on it is a published one.
Identity shared_identity(int fd, std::uint64_t device, std::uint64_t inode) noexcept;
// The file of `fd` if it was published under this number: perhaps a share of a description that is not locked just now.
std::uint32_t file_of_published(int fd) noexcept;

// After a lock was taken on `fd`: finds and records the ancestors that share the description, and publishes it.
void look_for_sharers(Thread &me, int fd, Identity identity, wire::Family family) noexcept;

// Tracks `fd` if a published lock hangs on it.
bool adopt(int fd) noexcept;
// The same for all descriptors; true when the process then has tracked descriptors.
bool adopt_all() noexcept;

// "name!…" as told above for the tracked descriptors that a new image would get; false when there is nothing to tell.
// `out` begins with "PLANLOOP_SESSION=".
constexpr std::size_t kSessionVariableBytes = 1280;
bool session_variable(Thread &me, char (&out)[kSessionVariableBytes]) noexcept;

}  // namespace planloop::shim

#endif
