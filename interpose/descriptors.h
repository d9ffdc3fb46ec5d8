// What the shim knows of the program's descriptors: which file and which open file description a number means. Only
// descriptors that a lock call was made on, or that a hold of this session is known to hang on, are in the table: they
// are "tracked". Children of fork inherit the table with the memory; numbers of files and descriptions are unique in
// the spool.
//
// How a stale entry is noticed. fstat costs half as much as a lock and unlock pair, so it cannot precede every call;
// but no hook sees every way of closing (raw system calls, io_uring, libc's own). An entry is therefore trusted without
// asking only when the same thread's last call on the same number came back less than `Process::trust_ticks` ago, less
// than any system call takes: there is no time in which the number could have been closed and given out again.
// Otherwise an acquisition asks fstat first. An unlock needs not ask: it ends what the number was last known to mean.
//
// Threads: lookups and changes are wait-free; two threads that change one number at once leave what one of them wrote,
// as with the descriptor itself. Signals: safe.
#ifndef PLANLOOP_INTERPOSE_DESCRIPTORS_H
#define PLANLOOP_INTERPOSE_DESCRIPTORS_H

#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "interpose/attach.h"

namespace planloop::shim {

struct Identity {
    std::uint32_t file = 0;  // 0: the descriptor is not open
    std::uint32_t description = 0;

    std::uint64_t packed() const noexcept { return std::uint64_t{file} << 32 | description; }
    static Identity unpack(std::uint64_t ids) noexcept {
        return {static_cast<std::uint32_t>(ids >> 32), static_cast<std::uint32_t>(ids)};
    }
};

struct Descriptor {
    enum Provenance : std::uint32_t {
        opened_here,  // this process image opened it
        found_open,   // it was open when the image began or made a child, so others may share it
        named,        // the same, and the share table has it
        inherited,    // another process is known to share it, or was looked for
    };
    std::atomic<std::uint64_t> ids;  // Identity::packed(); 0: not tracked
    std::uint64_t device;
    std::uint64_t inode;
    std::atomic<std::uint32_t> provenance;   // Provenance
    std::atomic<std::uint32_t> posix_noted;  // note_posix_lock() was told
};

inline constexpr int kMostDescriptors =
    1 << 20;  // the kernel's usual ceiling, fs.nr_open; a higher number is not tracked
inline constexpr int kDescriptorsPerPage = 256;

struct DescriptorPage {
    Descriptor descriptors[kDescriptorsPerPage];
};

extern std::atomic<DescriptorPage *> descriptor_pages[kMostDescriptors / kDescriptorsPerPage];

// Bit fd % 64: a descriptor of that number is or was tracked, or (all bits) a POSIX lock was taken, which the close of
// any descriptor may drop. A hook on a way of closing looks here first. Bits are never cleared: what they cost is a
// look into the table.
extern std::atomic<std::uint64_t> tracked_mask;
// The spool's shares_about once it is mapped; until then one of two constants. kNotLooked: this image came by
// descriptors that others may lock, so each time it matters somebody has to look (sharing_mark.h).
extern std::atomic<const std::atomic<std::uint64_t> *> shares_about;

inline constexpr std::atomic<std::uint64_t> kNothingShared{0};
inline constexpr std::atomic<std::uint64_t> kNotLooked{1};
inline bool spool_is_mapped() noexcept {
    const std::atomic<std::uint64_t> *word = shares_about.load(std::memory_order_relaxed);
    return word != &kNothingShared && word != &kNotLooked;
}

bool look_whether_shared() noexcept;  // sharing_mark.h
inline bool shared_about() noexcept {
    const std::atomic<std::uint64_t> *word = shares_about.load(std::memory_order_relaxed);
    if (__builtin_expect(word->load(std::memory_order_relaxed) == 0, 1)) return false;
    return word != &kNotLooked || look_whether_shared();
}

// Whether another process may have a descriptor: it was open when the image began or made a child, or is a copy of such
// a one. For low numbers bit fd says so; of a higher one only when it was last known to be ours alone: after so many
// children.
inline constexpr int kNoted = 64;
inline constexpr int kNumbered = 1024;
extern std::atomic<std::uint64_t> noted_open;
extern std::atomic<std::uint32_t> children_made;  // and one more if a file had a higher number at the start
extern std::atomic<std::uint32_t> ours_after[kNumbered];
extern std::atomic<bool> any_ours;  // a higher number was noted as ours alone since the last child
// What was looked for in the share table as of its news `compared_as_of`; bit fd, and the higher numbers together. And
// one by one: as of which news, and one more.
extern std::atomic<std::uint64_t> compared;
extern std::atomic<bool> compared_high;
extern std::atomic<std::uint32_t> compared_as_of;
extern std::atomic<std::uint32_t> compared_after[kNumbered];

inline std::uint64_t noted_bit(int fd) noexcept {
    return static_cast<unsigned>(fd) < static_cast<unsigned>(kNoted) ? std::uint64_t{1} << fd : 0;
}
inline bool perhaps_shared(int fd) noexcept {
    if (const std::uint64_t bit = noted_bit(fd)) return (noted_open.load(std::memory_order_relaxed) & bit) != 0;
    const std::uint32_t children = children_made.load(std::memory_order_relaxed);
    if (static_cast<unsigned>(fd) >= static_cast<unsigned>(kNumbered)) return children != 0;
    return ours_after[fd].load(std::memory_order_relaxed) != children;
}

inline bool may_concern_locks(int fd) noexcept {
    const std::uint64_t mask = tracked_mask.load(std::memory_order_relaxed);
    return (mask >> (static_cast<unsigned>(fd) % 64) & 1) != 0 || (shared_about() && perhaps_shared(fd));
}

// What is opened under this number from now on is this process's own. Not what a vfork child closes: the notes are its
// parent's.
inline void forget_noted(int fd) noexcept {
    if (!perhaps_shared(fd) || thread.vfork_parent != 0) return;
    if (static_cast<unsigned>(fd) < static_cast<unsigned>(kNumbered)) {
        compared_after[fd].store(0, std::memory_order_relaxed);
    }
    if (const std::uint64_t bit = noted_bit(fd)) {
        noted_open.fetch_and(~bit, std::memory_order_relaxed);
        compared.fetch_and(~bit, std::memory_order_relaxed);
    } else if (static_cast<unsigned>(fd) < static_cast<unsigned>(kNumbered)) {
        ours_after[fd].store(children_made.load(std::memory_order_relaxed), std::memory_order_relaxed);
        if (!any_ours.load(std::memory_order_relaxed)) any_ours.store(true, std::memory_order_release);
    }
}

// The tracked descriptor of a number; nullptr: not tracked.
inline Descriptor *find_descriptor(int fd) noexcept {
    if (static_cast<unsigned>(fd) >= static_cast<unsigned>(kMostDescriptors)) return nullptr;
    DescriptorPage *page = descriptor_pages[fd / kDescriptorsPerPage].load(std::memory_order_acquire);
    if (page == nullptr) return nullptr;
    Descriptor *descriptor = &page->descriptors[fd % kDescriptorsPerPage];
    return descriptor->ids.load(std::memory_order_acquire) != 0 ? descriptor : nullptr;
}

// Asks the kernel and, at the first sight of a file, writes its record.
Identity identify_slowly(Thread &me, int fd, wire::Family family) noexcept;

void note_perhaps_shared(int fd) noexcept;

// A descriptor that is not tracked was copied: when a lock is taken on it or its copy, the other has to be found.
extern std::atomic<std::uint64_t> copied_mask;
void note_copy_of_shared(int original, int copy) noexcept;
inline void mark_copied(int original, int copy) noexcept {
    const std::uint64_t bits = std::uint64_t{1} << (static_cast<unsigned>(original) % 64) |
                               std::uint64_t{1} << (static_cast<unsigned>(copy) % 64);
    if ((copied_mask.load(std::memory_order_relaxed) & bits) != bits) {
        copied_mask.fetch_or(bits, std::memory_order_relaxed);
    }
}
inline void note_untracked_copy(int original, int copy) noexcept {
    mark_copied(original, copy);
    if (__builtin_expect(thread.vfork_parent != 0, 0)) thread.vfork_copied = true;
    if (__builtin_expect(perhaps_shared(original), 0)) {
        note_copy_of_shared(original, copy);
    } else {
        forget_noted(copy);
    }
}

// Locks of this family belong to the description, and whether others share it is not settled yet.
inline bool to_be_named(const Descriptor &descriptor, wire::Family family) noexcept {
    return family != wire::Family::posix &&
           descriptor.provenance.load(std::memory_order_relaxed) == Descriptor::found_open;
}

// What `fd` means now, for an acquisition that begins at `now`.
inline Identity identify(Thread &me, int fd, wire::Family family, std::uint64_t now) noexcept {
    if (me.trusted_fd == fd && now - me.trusted_until < process.trust_ticks) {
        const Descriptor *descriptor = find_descriptor(fd);
        if (descriptor != nullptr && descriptor->ids.load(std::memory_order_relaxed) == me.trusted_ids &&
            !to_be_named(*descriptor, family)) {
            return Identity::unpack(me.trusted_ids);
        }
    }
    return identify_slowly(me, fd, family);
}

inline void trust(Thread &me, int fd, Identity identity, std::uint64_t now) noexcept {
    me.trusted_fd = fd;
    me.trusted_ids = identity.packed();
    me.trusted_until = now;
}

// Starts to track `fd` as `identity`, known from elsewhere; replaces what the number meant.
void track(int fd, Identity identity, std::uint64_t device, std::uint64_t inode,
           Descriptor::Provenance provenance) noexcept;
// `copy` is from now on what `original` is, if that is tracked.
void track_copy(int original, int copy) noexcept;
void untrack(int fd) noexcept;

// Notes which descriptors are open when the image starts, and when it makes a child: only those can be shared with
// another process.
void note_descriptors_at_start() noexcept;
// Whether somebody may lock it: it is open, and not a pipe or a socket.
bool is_lockable(int fd) noexcept;
// Whether this image came by such a one, the standard streams aside.
bool has_lockable_descriptors() noexcept;
void note_descriptors_for_child() noexcept;

// Calls visit(fd, Descriptor) for every tracked descriptor.
template <class Visit>
void for_each_tracked(Visit visit) noexcept {
    for (int number = 0; number < kMostDescriptors / kDescriptorsPerPage; ++number) {
        DescriptorPage *page = descriptor_pages[number].load(std::memory_order_acquire);
        for (int i = 0; page != nullptr && i < kDescriptorsPerPage; ++i) {
            if (page->descriptors[i].ids.load(std::memory_order_acquire) == 0) continue;
            visit(number * kDescriptorsPerPage + i, page->descriptors[i]);
        }
    }
}

// A POSIX lock was taken on `fd`, whose file is `file`, by this image or the one before: every close may drop it now.
void note_posix_lock(int fd, std::uint32_t file) noexcept;
// The number of the file that `fd` is open on if this process image ever held a POSIX lock on it, else 0.
std::uint32_t posix_locked_file(int fd) noexcept;
std::uint32_t posix_locked_file(std::uint64_t device, std::uint64_t inode) noexcept;

// The number of the file that `fd` is open on, whose fstat is `status`: if it is known, else a new one, recorded.
std::uint32_t file_number(Thread &me, int fd, const struct stat &status) noexcept;

// Records once more what file `fd`, which is open, is on: see ring.h.
void repeat_file(Thread &me, int fd, std::uint32_t file) noexcept;

// Calls visit(fd) for every descriptor that is open in this process, or another; false when /proc does not tell.
template <class Visit>
bool for_each_open_descriptor(Visit visit) noexcept;
template <class Visit>
bool for_each_open_descriptor(std::int32_t pid, Visit visit) noexcept;

}  // namespace planloop::shim

#include "interpose/open_descriptors.h"

#endif
