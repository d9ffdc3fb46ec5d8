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
        found_open,   // it was open when the image attached: perhaps inherited
        inherited,    // another process is known to share it
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
// The spool's inherited_fds once it is mapped; until then a constant zero.
extern std::atomic<const std::atomic<std::uint64_t> *> shared_mask;

inline bool shares_number_with_inherited(int fd) noexcept {
    const std::uint64_t mask = shared_mask.load(std::memory_order_relaxed)->load(std::memory_order_relaxed);
    return (mask >> (static_cast<unsigned>(fd) % 64) & 1) != 0;
}

inline bool may_concern_locks(int fd) noexcept {
    const std::uint64_t mask = tracked_mask.load(std::memory_order_relaxed);
    return (mask >> (static_cast<unsigned>(fd) % 64) & 1) != 0 || shares_number_with_inherited(fd);
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
Identity identify_slowly(Thread &me, int fd) noexcept;

// A descriptor that is not tracked was copied: when a lock is taken on it or its copy, the other has to be found.
extern std::atomic<std::uint64_t> copied_mask;
inline void note_untracked_copy(int original, int copy) noexcept {
    const std::uint64_t bits = std::uint64_t{1} << (static_cast<unsigned>(original) % 64) |
                               std::uint64_t{1} << (static_cast<unsigned>(copy) % 64);
    if ((copied_mask.load(std::memory_order_relaxed) & bits) != bits) {
        copied_mask.fetch_or(bits, std::memory_order_relaxed);
    }
}

// What `fd` means now, for an acquisition that begins at `now`.
inline Identity identify(Thread &me, int fd, std::uint64_t now) noexcept {
    if (me.trusted_fd == fd && now - me.trusted_until < process.trust_ticks) {
        const Descriptor *descriptor = find_descriptor(fd);
        if (descriptor != nullptr && descriptor->ids.load(std::memory_order_relaxed) == me.trusted_ids) {
            return Identity::unpack(me.trusted_ids);
        }
    }
    return identify_slowly(me, fd);
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

// Notes which descriptors are open when the image starts and whenever it forks: only those can be shared with another
// process. One system call; higher numbers than it looks at count as perhaps shared.
void note_open_descriptors() noexcept;

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

// The number of a file by device and inode if one is known, else a new one, recorded. `fd` is open on it.
std::uint32_t file_number(Thread &me, int fd, std::uint64_t device, std::uint64_t inode, std::uint32_t mode) noexcept;

// Calls visit(fd) for every descriptor that is open in this process; false when /proc is not there.
template <class Visit>
bool for_each_open_descriptor(Visit visit) noexcept;

}  // namespace planloop::shim

#include "interpose/open_descriptors.h"

#endif
