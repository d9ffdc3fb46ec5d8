// What a new program image is told of the locks that it will hold. Over exec and spawn the tracked descriptors ride
// behind the session's name in PLANLOOP_SESSION (`name!pid.image;fd.description.file;...`, with an `n` behind those
// that are not in the share table yet, and a `p` behind those through which POSIX locks were taken), so that the next
// image knows what it has before it opens anything else.
//
// Between vfork and exec, or by the file actions of posix_spawn, descriptors may get other numbers or other files. A
// vfork child compares with its parent, whose table it shares the memory of. A spawned image is told all that its
// parent has, device and inode too, with an `s` behind the image, and compares by itself.
//
// Signals: all async-signal-safe. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_INHERITED_H
#define PLANLOOP_INTERPOSE_INHERITED_H

#include <cstdint>

#include "interpose/attach.h"
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

// How the new image comes by its descriptors.
enum class Handover : std::uint8_t {
    as_they_are,  // exec, also of a forked or vforked child
    by_actions,   // posix_spawn with file actions: only the new image can tell
};

// Appends "pid.image;fd…" as told above for the tracked descriptors that a new image would get; false: there are none.
// Those beyond the room in Settings::inherited are published (shares.h) instead.
bool append_inherited(Thread &me, Text &text, Handover handover) noexcept;

// Records what a spawned or vforked child, which runs another program now, has of the tracked descriptors. To be called
// before this process changes any of them.
void note_spawned(Thread &me, std::int32_t child) noexcept;

}  // namespace planloop::shim

#endif
