// The ways to close and to copy a descriptor. Each costs one test of a mask as long as no lock is about, and all are as
// async-signal-safe as the functions they stand for.
#include <dirent.h>
#include <linux/close_range.h>
#include <stdio.h>
#include <unistd.h>

#include "interpose/descriptor_calls.h"
#include "interpose/real.h"
#include "interpose/shares.h"

namespace planloop::shim {

wire::Record *let_go(int fd, wire::CloseCause cause) noexcept {
    Thread &me = thread;
    if (fd < 0 || in_vfork_child(me)) return nullptr;
    if (shared_about()) adopt(fd);
    Identity identity;
    if (const Descriptor *descriptor = find_descriptor(fd)) {
        identity = Identity::unpack(descriptor->ids.load(std::memory_order_relaxed));
        unshare(fd, *descriptor);
    } else {
        identity.file = posix_locked_file(fd);
    }
    untrack(fd);
    if (identity.packed() == 0 || !enter(me)) return nullptr;
    return write_note(me, {.kind = wire::RecordKind::close,
                           .fd = fd,
                           .file = identity.file,
                           .description = identity.description,
                           .a = static_cast<std::uint64_t>(cause)});
}

void let_go_range(unsigned first, unsigned last, wire::CloseCause cause) noexcept {
    if (tracked_mask.load(std::memory_order_relaxed) == 0 && !shared_about()) {
        for (unsigned fd = first; fd <= last && fd < static_cast<unsigned>(kNumbered); ++fd) {
            forget_noted(static_cast<int>(fd));
        }
        return;
    }
    const auto visit = [=](int fd) {
        const auto number = static_cast<unsigned>(fd);
        if (number >= first && number <= last && may_concern_locks(fd)) let_go(fd, cause);
    };
    if (for_each_open_descriptor(visit)) return;
    constexpr unsigned kLikelyOpen = 1024;
    for (unsigned fd = first; fd <= last && fd < kLikelyOpen; ++fd) visit(static_cast<int>(fd));
}

void note_duplicate(int original, int copy) noexcept {
    Thread &me = thread;
    if (original == copy) return;
    // Once a POSIX lock was taken every number may concern locks, but a copy adds nothing to what a close has to look
    // at.
    if (find_descriptor(original) == nullptr && !(shared_about() && perhaps_shared(original))) {
        return note_untracked_copy(original, copy);
    }
    if (in_vfork_child(me)) {
        me.vfork_copied = true;
        return;
    }
    if (!adopt(original)) return note_untracked_copy(original, copy);
    const Descriptor *descriptor = find_descriptor(original);
    if (descriptor == nullptr || !enter(me)) return;
    const Identity identity = Identity::unpack(descriptor->ids.load(std::memory_order_relaxed));
    track_copy(original, copy);
    if (descriptor->provenance.load(std::memory_order_relaxed) >= Descriptor::named) share_copy(copy);
    write_note(me, {.kind = wire::RecordKind::duplicate,
                    .fd = original,
                    .file = identity.file,
                    .description = identity.description,
                    .a = static_cast<std::uint64_t>(copy)});
}

namespace {

template <Symbol symbol>
int hook_close(int fd) {
    if (__builtin_expect(may_concern_locks(fd), 0)) {
        let_go(fd, wire::CloseCause::close);
    } else {
        forget_noted(fd);
    }
    return real<symbol>()(fd);
}

int call_dup(int fd) {
    if (__builtin_expect(!may_stand_in<Symbol::dup>(), 0)) return real<Symbol::dup>()(fd);
    return libcs_result(wire::raw_syscall6(SYS_dup, fd, 0, 0, 0, 0, 0));
}

// A copy that there is little to note about ends in a jump.
template <Symbol symbol, class... Flags>
int hook_dup2(int fd, int copy, Flags... flags) {
    const auto is_ours_alone = [](int number) {
        return (tracked_mask.load(std::memory_order_relaxed) >> (static_cast<unsigned>(number) % 64) & 1) == 0 &&
               !perhaps_shared(number);
    };
    if (is_ours_alone(fd) && is_ours_alone(copy) && thread.vfork_parent == 0) {
        mark_copied(fd, copy);  // also when it then fails: a mark too many costs a look
        return real<symbol>()(fd, copy, flags...);
    }
    return static_cast<int>(record_replace(fd, copy, [=] { return real<symbol>()(fd, copy, flags...); }));
}

void let_go_stream(FILE *stream) {
    if (stream == nullptr) return;
    const int saved_errno = errno;
    const int fd = fileno(stream);  // -1 for streams without a descriptor; then it sets errno
    errno = saved_errno;
    if (fd >= 0 && may_concern_locks(fd)) let_go(fd, wire::CloseCause::stream);
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" int planloop_close(int fd) PLANLOOP_EXPORT(close);
int planloop_close(int fd) {
    return hook_close<Symbol::close>(fd);
}

extern "C" int planloop___close(int fd) PLANLOOP_EXPORT(__close);
int planloop___close(int fd) {
    return hook_close<Symbol::__close>(fd);
}

extern "C" int planloop_close_range(unsigned first, unsigned last, int flags) PLANLOOP_EXPORT(close_range);
int planloop_close_range(unsigned first, unsigned last, int flags) {
    if (first <= last && (flags & ~static_cast<int>(CLOSE_RANGE_UNSHARE)) == 0) {
        let_go_range(first, last, wire::CloseCause::close_range);
    }
    return real<Symbol::close_range>()(first, last, flags);
}

extern "C" void planloop_closefrom(int first) PLANLOOP_EXPORT(closefrom);
void planloop_closefrom(int first) {
    let_go_range(first > 0 ? static_cast<unsigned>(first) : 0u, ~0u, wire::CloseCause::close_range);
    real<Symbol::closefrom>()(first);
}

extern "C" int planloop_fclose(FILE *stream) PLANLOOP_EXPORT(fclose);
int planloop_fclose(FILE *stream) {
    let_go_stream(stream);
    return real<Symbol::fclose>()(stream);
}

extern "C" FILE *planloop_freopen(const char *path, const char *mode, FILE *stream) PLANLOOP_EXPORT(freopen);
FILE *planloop_freopen(const char *path, const char *mode, FILE *stream) {
    let_go_stream(stream);
    return real<Symbol::freopen>()(path, mode, stream);
}

extern "C" FILE *planloop_freopen64(const char *path, const char *mode, FILE *stream) PLANLOOP_EXPORT(freopen64);
FILE *planloop_freopen64(const char *path, const char *mode, FILE *stream) {
    let_go_stream(stream);
    return real<Symbol::freopen64>()(path, mode, stream);
}

extern "C" int planloop_closedir(DIR *folder) PLANLOOP_EXPORT(closedir);
int planloop_closedir(DIR *folder) {
    if (folder != nullptr) {
        const int fd = dirfd(folder);
        if (may_concern_locks(fd)) let_go(fd, wire::CloseCause::stream);
    }
    return real<Symbol::closedir>()(folder);
}

extern "C" int planloop_dup(int fd) PLANLOOP_EXPORT(dup);
int planloop_dup(int fd) {
    const int copy = call_dup(fd);
    if (__builtin_expect(!may_concern_locks(fd), 1)) {
        if (copy >= 0) note_untracked_copy(fd, copy);
    } else if (copy >= 0) {
        note_duplicate(fd, copy);
    }
    return copy;
}

extern "C" int planloop_dup2(int fd, int copy) PLANLOOP_EXPORT(dup2);
int planloop_dup2(int fd, int copy) {
    return hook_dup2<Symbol::dup2>(fd, copy);
}

extern "C" int planloop___dup2(int fd, int copy) PLANLOOP_EXPORT(__dup2);
int planloop___dup2(int fd, int copy) {
    return hook_dup2<Symbol::__dup2>(fd, copy);
}

extern "C" int planloop_dup3(int fd, int copy, int flags) PLANLOOP_EXPORT(dup3);
int planloop_dup3(int fd, int copy, int flags) {
    return hook_dup2<Symbol::dup3>(fd, copy, flags);
}
