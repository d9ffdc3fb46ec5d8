// How a spool file gets its space: reserved on the disk ahead of those who write, and its pages in memory. Part of
// spool_writer.h.
//
// Rejected: growing by ftruncate alone (a full disk is then SIGBUS in the traced program); posix_fallocate (emulates by
// touching every block, and sends SIGXFSZ past RLIMIT_FSIZE); a file lock around growth (it would stand in the trace).
#ifndef PLANLOOP_LOCKCORE_WIRE_SPOOL_GROWTH_H
#define PLANLOOP_LOCKCORE_WIRE_SPOOL_GROWTH_H

#include <sys/uio.h>

#include "lockcore/wire/spool_writer.h"

namespace planloop::wire {

inline int SpoolWriter::reserve(std::uint64_t bytes) noexcept {
    if (header_->reserved_bytes.load(std::memory_order_acquire) >= bytes) return 0;
    if (bytes > header_->limit_bytes) return -EFBIG;
    const auto tid = static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
    constexpr int kPatience = 20'000;  // yields; whoever extends needs a millisecond at most, unless it died or stopped
    for (int waited = 0;; ++waited) {
        const std::uint64_t reserved = header_->reserved_bytes.load(std::memory_order_acquire);
        if (reserved >= bytes) return 0;
        std::uint32_t owner = header_->growing.load(std::memory_order_relaxed);
        if (owner != 0 && waited % kPatience != kPatience - 1) {
            raw_syscall(SYS_sched_yield);
            continue;
        }
        if (!header_->growing.compare_exchange_strong(owner, tid, std::memory_order_acquire)) continue;
        std::uint64_t step = reserved / 4;
        if (step < kFirstReserveBytes) step = kFirstReserveBytes;
        if (step > kMostReserveStepBytes) step = kMostReserveStepBytes;
        std::uint64_t target = reserved + step;
        if (target < bytes) target = bytes;
        if (target > header_->limit_bytes) target = header_->limit_bytes;
        int result = extend(reserved, target, tid);
        if (result != 0 && target > bytes) {  // a disk or a limit that is nearly reached
            target = bytes;
            result = extend(reserved, target, tid);
        }
        if (result == 0) {
            std::uint64_t seen = reserved;
            while (seen < target && !header_->reserved_bytes.compare_exchange_weak(seen, target)) {
            }
        }
        std::uint32_t mine = tid;
        header_->growing.compare_exchange_strong(mine, 0, std::memory_order_release);
        if (result != 0) return result;
    }
}

// False once somebody lost patience with this thread and extended the file in its place: what lies behind `from` may
// hold records by now.
inline bool SpoolWriter::still_extends(std::uint64_t from, std::uint32_t tid) const noexcept {
    return header_->growing.load(std::memory_order_acquire) == tid &&
           header_->reserved_bytes.load(std::memory_order_acquire) <= from;
}

inline int SpoolWriter::extend(std::uint64_t from, std::uint64_t to, std::uint32_t tid) noexcept {
    struct rlimit limit {};
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) == 0 && to > limit.rlim_cur) return -EFBIG;
    const int fd = open_again();
    if (fd < 0) return fd;
    struct statfs disk {};
    long result = raw_syscall(SYS_fstatfs, fd, &disk);
    if (result == 0 && disk.f_blocks != 0 &&
        static_cast<std::uint64_t>(disk.f_bavail) * static_cast<std::uint64_t>(disk.f_bsize) <
            to - from + kLeaveFreeBytes) {
        result = -ENOSPC;
    }
    if (result == 0) result = allocate(fd, from, to, tid);
    raw_close(fd);
    return static_cast<int>(result);
}

inline int SpoolWriter::allocate(int fd, std::uint64_t from, std::uint64_t to, std::uint32_t tid) noexcept {
    long result = 0;
    do {
        result = raw_syscall(SYS_fallocate, fd, 0, from, to - from);
    } while (result == -EINTR);
    if ((result == -ENOSPC || result == -EDQUOT) && still_extends(from, tid)) {  // ext4 keeps what it got: give it back
        raw_syscall(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, from, to - from);
    }
    if (result != -EOPNOTSUPP) return static_cast<int>(result);
    static const char zeros[kPageBytes] = {};
    for (std::uint64_t at = from; at < to; at += kPageBytes) {
        if (!still_extends(from, tid)) return 0;
        const long wrote = raw_syscall(SYS_pwrite64, fd, zeros, kPageBytes, at);
        if (wrote != static_cast<long>(kPageBytes)) return wrote < 0 ? static_cast<int>(wrote) : -ENOSPC;
    }
    return 0;
}

// A write of many pages is one piece of work for a file system that keeps them in large folios (ext4 since Linux 6.16,
// XFS, Btrfs), and then a fault maps more than one: 570 ns a page on ext4, where MADV_POPULATE_WRITE takes 1390. Below
// 64 KiB, and for files in memory, it gains nothing.
inline void SpoolWriter::make_pages(char *memory, std::uint64_t offset, std::size_t bytes) const noexcept {
    constexpr std::size_t kWorthWriting = 64 * 1024;
    if (bytes >= kWorthWriting && !in_memory_ && write_zeros(offset, bytes)) return;
    if (bytes > kPageBytes) raw_syscall(SYS_madvise, memory, bytes, 23 /* MADV_POPULATE_WRITE, Linux 5.14 */);
}

// Into reserved space that nobody else writes to. Asked beforehand, since a write past RLIMIT_FSIZE is SIGXFSZ.
inline bool SpoolWriter::write_zeros(std::uint64_t offset, std::size_t bytes) const noexcept {
    struct rlimit limit {};
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) != 0 || offset + bytes > limit.rlim_cur)
        return false;
    static const char zeros[kPageBytes] = {};
    iovec pages[kLargestChunkBytes / kPageBytes];
    const std::size_t count = bytes / kPageBytes;
    for (std::size_t i = 0; i < count; ++i) pages[i] = {const_cast<char *>(zeros), kPageBytes};
    const int fd = open_again();
    if (fd < 0) return false;
    const long wrote = raw_syscall(SYS_pwritev, fd, pages, count, offset, 0);
    raw_close(fd);
    return wrote == static_cast<long>(bytes);
}

}  // namespace planloop::wire

#endif
