// The spool file of a process that writes: opens or makes it, hands out chunks, and sees that the disk has promised a
// page before anyone stores to it. StreamWriter (stream_writer.h) puts a thread's records into the chunks.
//
// Nothing here allocates, throws, changes errno or is a cancellation point. On trouble it counts a drop and gives
// nullptr. Thread-safe; async-signal-safe but for open(), which is called once, with signals blocked.
#ifndef PLANLOOP_LOCKCORE_WIRE_SPOOL_WRITER_H
#define PLANLOOP_LOCKCORE_WIRE_SPOOL_WRITER_H

#include <fcntl.h>
#include <linux/falloc.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>

#include "lockcore/wire/raw_syscall.h"
#include "lockcore/wire/spool_format.h"
#include "lockcore/wire/thread_end.h"
#include "lockcore/wire/ticks.h"

namespace planloop::wire {

// Blocks every signal of this thread for a scope.
class SignalsBlocked {
  public:
    SignalsBlocked() noexcept {
        const std::uint64_t all = ~std::uint64_t{0};
        raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sizeof(before_));
    }
    ~SignalsBlocked() noexcept { raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof(before_)); }
    SignalsBlocked(const SignalsBlocked &) = delete;
    SignalsBlocked &operator=(const SignalsBlocked &) = delete;

  private:
    std::uint64_t before_ = 0;
};

inline int raw_open(const char *path, int flags, unsigned mode = 0) noexcept {
    return static_cast<int>(raw_syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode));
}
inline void raw_close(int fd) noexcept {
    raw_syscall(SYS_close, fd);
}

// The boot id as 16 bytes; false when /proc does not tell.
inline bool read_boot_id(std::uint8_t (&id)[16]) noexcept {
    const int fd = raw_open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    if (fd < 0) return false;
    char text[36];
    const long got = raw_syscall(SYS_read, fd, text, sizeof(text));
    raw_close(fd);
    if (got != static_cast<long>(sizeof(text))) return false;
    std::size_t nibbles = 0;
    for (const char c : text) {
        if (c == '-') continue;
        const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
        if (digit < 0 || nibbles >= 32) return false;
        id[nibbles / 2] = static_cast<std::uint8_t>(id[nibbles / 2] << 4 | digit);
        ++nibbles;
    }
    return nibbles == 32;
}

class SpoolWriter {
  public:
    // Mapped at once. It costs address space only, but a program may be short of that (RLIMIT_AS).
    static constexpr std::size_t kWindowBytes = std::size_t{16} << 20;
    static constexpr std::size_t kMostWindows = 4096;
    static constexpr std::size_t kPathBytes = 4096;
    static constexpr std::uint64_t kFirstReserveBytes = std::uint64_t{1} << 20;
    static constexpr std::uint64_t kMostReserveStepBytes = std::uint64_t{16} << 20;
    static constexpr std::uint64_t kLeaveFreeBytes = std::uint64_t{16} << 20;  // never take a disk's last space

    // Opens the spool of this boot in `spool_folder`, which exists, and makes the file (0600) if it must. Maps one
    // page. 0 or a negative errno; -EPROTO: the file there is not a spool of this version; -ENOENT: none, not to
    // `make`. A new file gets `limit_bytes`, or is a ring when `ring_bytes` is not 0 (rounded to whole chunks).
    int open(const char *spool_folder, std::uint64_t limit_bytes = kDefaultLimitBytes, std::uint64_t ring_bytes = 0,
             bool make = true) noexcept;
    bool is_open() const noexcept { return header_ != nullptr; }

    SpoolHeader &header() noexcept { return *header_; }
    ClockKind clock() const noexcept { return clock_; }
    bool is_ring() const noexcept { return ring_bytes_ != 0; }
    const char *path() const noexcept { return path_; }
    std::uint64_t ticks() const noexcept { return read_ticks(clock_); }

    void count_drop(Drop why, std::uint64_t events = 1) noexcept {
        if (header_ != nullptr) {
            header_->dropped[static_cast<std::size_t>(why)].fetch_add(events, std::memory_order_relaxed);
        }
    }

    // Leaves the clocks as they are now for whoever reads this when the recording is over (SpoolHeader::final_ticks).
    void leave_clocks() noexcept {
        constexpr std::uint64_t kLeaving = 1;
        if (clock_ != ClockKind::tsc || header_->clock != ClockKind::tsc) return;
        const Calibration now = calibrate(clock_);
        std::uint64_t before = header_->final_ticks.load(std::memory_order_relaxed);
        if (before == kLeaving || before >= now.ticks) return;
        if (!header_->final_ticks.compare_exchange_strong(before, kLeaving, std::memory_order_acquire)) return;
        header_->final_monotonic_ns.store(now.monotonic_ns, std::memory_order_release);
        header_->final_utc_ns.store(now.utc_ns, std::memory_order_release);
        header_->final_ticks.store(now.ticks, std::memory_order_release);
    }

    // Makes sure that the first `bytes` of the file may be written; 0 or a negative errno.
    int reserve(std::uint64_t bytes) noexcept;

    // Whether a claim can succeed at all, cheaply: after a failure it is tried again only some tenths of a second
    // later, so that a program on a full disk keeps its speed.
    bool worth_trying() noexcept { return ticks() >= retry_at_.load(std::memory_order_relaxed); }
    // Counts a drop for the reason that the last claim failed for.
    void count_refusal() noexcept { count_drop(refusal_.load(std::memory_order_relaxed)); }

    // A chunk of `bytes`, or where there is no room for that of `least_bytes` (whole pages), mapped, zero and ready to
    // be written; `bytes` becomes its size. nullptr: dropped and counted. In a ring all chunks have one size, and
    // `claim` tells how often this one was claimed (ChunkHeader::clock).
    char *claim_chunk(std::size_t &bytes, std::size_t least_bytes, std::uint64_t &offset,
                      std::uint16_t &claim) noexcept;
    char *claim_chunk(std::size_t &bytes, std::size_t least_bytes, std::uint64_t &offset) noexcept {
        std::uint16_t claim = 0;
        return claim_chunk(bytes, least_bytes, offset, claim);
    }

    // Brings the pages of a new chunk into memory, which costs a third of what they cost when touched one by one.
    void make_pages(char *memory, std::uint64_t offset, std::size_t bytes) const noexcept;

  private:
    bool write_zeros(std::uint64_t offset, std::size_t bytes) const noexcept;
    char *place_for(std::uint64_t offset, std::size_t bytes, Drop &why) noexcept;
    char *try_claim(std::size_t bytes, std::uint64_t &offset, Drop &why) noexcept;
    char *try_claim_in_ring(std::uint64_t &offset, std::uint16_t &claim, Drop &why) noexcept;
    bool take_in_ring(char *chunk, std::uint16_t &claim, bool looks_closely) noexcept;
    int create(const std::uint8_t (&boot_id)[16], std::uint64_t limit_bytes, std::uint64_t ring_bytes) noexcept;
    int map_header() noexcept;
    int map_file(int fd) noexcept;
    int open_again() const noexcept;
    int extend(std::uint64_t from, std::uint64_t to, std::uint32_t tid) noexcept;
    int allocate(int fd, std::uint64_t from, std::uint64_t to, std::uint32_t tid) noexcept;
    bool still_extends(std::uint64_t from, std::uint32_t tid) const noexcept;
    char *window(std::size_t index) noexcept;

    SpoolHeader *header_ = nullptr;

    static constexpr std::uint64_t kRetryTicks = std::uint64_t{1} << 28;  // 0.1 to 0.3 s
    ClockKind clock_ = ClockKind::monotonic;
    std::uint64_t ring_bytes_ = 0;
    bool in_memory_ = false;                // the file is no disk's
    std::uint64_t device_ = 0, inode_ = 0;  // another file may get this one's name
    std::atomic<std::uint64_t> retry_at_ = 0;
    std::atomic<Drop> refusal_ = Drop::no_space;
    std::atomic<char *> windows_[kMostWindows] = {};
    char path_[kPathBytes] = {};
};

// The pid namespace of this process; 0: not known.
inline std::uint64_t pid_space() noexcept {
    struct stat status {};
    return raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &status, 0) == 0 ? status.st_ino : 0;
}

inline int SpoolWriter::open(const char *spool_folder, std::uint64_t limit_bytes, std::uint64_t ring_bytes,
                             bool make) noexcept {
    std::uint8_t boot_id[16] = {};
    if (!read_boot_id(boot_id)) {
        // Without /proc nothing can be recorded; without a descriptor to spare, not now.
        const int probe = raw_open("/proc/sys/kernel/random/boot_id", O_RDONLY);
        if (probe >= 0) raw_close(probe);
        return probe == -EMFILE || probe == -ENFILE ? probe : -ENOSYS;
    }
    const std::size_t folder_length = std::strlen(spool_folder);
    constexpr char kStem[] = "/locks-v";
    constexpr char kEnding[] = ".spool";
    if (folder_length + sizeof(kStem) + 2 + 8 + sizeof(kEnding) > kPathBytes) return -ENAMETOOLONG;
    static_assert(kFormatVersion < 10, "the file name has room for one digit");
    char *out = path_;
    std::memcpy(out, spool_folder, folder_length);
    out += folder_length;
    std::memcpy(out, kStem, sizeof(kStem) - 1);
    out += sizeof(kStem) - 1;
    *out++ = static_cast<char>('0' + kFormatVersion);
    *out++ = '-';
    for (int i = 0; i < 4; ++i) {
        *out++ = "0123456789abcdef"[boot_id[i] >> 4];
        *out++ = "0123456789abcdef"[boot_id[i] & 15];
    }
    std::memcpy(out, kEnding, sizeof(kEnding));

    // Who closes a spool gives it another name at once.
    constexpr int kPatience = 20'000;
    int result = 0;
    for (int waited = 0; waited < kPatience; ++waited) {
        result = map_header();
        if (result == -ENOENT && make) {
            result = create(boot_id, limit_bytes, ring_bytes);
            if (result == 0 || result == -EEXIST) result = map_header();
        }
        if (result != -ESTALE) break;
        raw_syscall(SYS_sched_yield);
    }
    return result;
}

inline int SpoolWriter::map_header() noexcept {
    const int fd = raw_open(path_, O_RDWR | O_NOFOLLOW);
    if (fd < 0) return fd;
    const int result = map_file(fd);
    raw_close(fd);
    return result;
}

inline int SpoolWriter::map_file(int fd) noexcept {
    struct stat status {};
    long result = raw_syscall(SYS_fstat, fd, &status);
    if (result == 0 && (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(kPageBytes))) result = -EPROTO;
    if (result == 0) result = raw_syscall(SYS_mmap, nullptr, kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (result < 0 && result > -4096) return static_cast<int>(result);
    auto *header = reinterpret_cast<SpoolHeader *>(result);
    const std::uint64_t next = header->next_offset.load(std::memory_order_relaxed);
    const std::uint64_t reserved = header->reserved_bytes.load(std::memory_order_acquire);
    bool ours = std::memcmp(header->magic, kSpoolMagic, sizeof(kSpoolMagic)) == 0 &&
                header->version == kFormatVersion && header->endian == kEndianMark && next >= kPageBytes &&
                next % kPageBytes == 0 && header->ring_bytes % kRingChunkBytes == 0;
    // A file that was cut short promises pages it has not got: a store there is SIGBUS. It may have grown since fstat.
    if (ours && reserved > static_cast<std::uint64_t>(status.st_size)) {
        ours = raw_syscall(SYS_fstat, fd, &status) == 0 && reserved <= static_cast<std::uint64_t>(status.st_size);
    }
    // Not written to unless it must be: a disk may be slow to allow that, and a process that only forks needs no more.
    Closing seen = header->closing.load(std::memory_order_seq_cst);
    if (ours && seen == Closing::wanted && header->closing.compare_exchange_strong(seen, Closing::open)) {
        seen = Closing::open;
    }
    const bool closed = ours && seen == Closing::closed;
    if (!ours || closed) {
        raw_syscall(SYS_munmap, header, kPageBytes);
        return ours ? -ESTALE : -EPROTO;
    }
    device_ = status.st_dev;
    inode_ = status.st_ino;
    struct statfs disk {};
    constexpr long kMemoryFiles = 0x01021994;  // TMPFS_MAGIC
    in_memory_ = raw_syscall(SYS_fstatfs, fd, &disk) == 0 && disk.f_type == kMemoryFiles;
    ring_bytes_ = header->ring_bytes;
    if (ring_bytes_ != 0 && header->pid_space != pid_space()) header->foreign_pids = 1;
    clock_ = header->clock == ClockKind::tsc && may_read_counter() ? ClockKind::tsc : ClockKind::monotonic;
    header_ = header;
    return 0;
}

// The file that is mapped, opened by its name; -ESTALE: the name is another one's now.
inline int SpoolWriter::open_again() const noexcept {
    const int fd = raw_open(path_, O_RDWR | O_NOFOLLOW);
    if (fd < 0) return fd;
    struct stat status {};
    if (raw_syscall(SYS_fstat, fd, &status) == 0 && status.st_dev == device_ && status.st_ino == inode_) return fd;
    raw_close(fd);
    return -ESTALE;
}

// The file appears under its name only when its header is whole: two processes may come here at once.
inline int SpoolWriter::create(const std::uint8_t (&boot_id)[16], std::uint64_t limit_bytes,
                               std::uint64_t ring_bytes) noexcept {
    struct rlimit limit {};  // past it, a write is SIGXFSZ
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) == 0 && limit.rlim_cur < kPageBytes) return -EFBIG;
    // Thread numbers alone are no names: two containers have the same ones.
    char temporary[kPathBytes + 32];
    std::size_t length = std::strlen(path_);
    std::memcpy(temporary, path_, length);
    temporary[length++] = '.';
    auto unique = read_ticks(detect_clock()) << 16 ^ static_cast<std::uint64_t>(raw_syscall(SYS_gettid));
    for (; unique != 0; unique >>= 4) temporary[length++] = "0123456789abcdef"[unique & 15];
    temporary[length] = '\0';

    alignas(SpoolHeader) char page[kPageBytes] = {};
    auto *header = new (page) SpoolHeader{};
    std::memcpy(header->magic, kSpoolMagic, sizeof(kSpoolMagic));
    header->version = kFormatVersion;
    header->endian = kEndianMark;
    std::memcpy(header->boot_id, boot_id, sizeof(boot_id));
    header->owner_uid = static_cast<std::uint32_t>(raw_syscall(SYS_geteuid));
    header->clock = detect_clock();
    header->created = calibrate(header->clock);
    header->limit_bytes = limit_bytes;
    header->next_offset = kPageBytes;
    if (ring_bytes != 0) {
        header->ring_bytes =
            ring_bytes < kSmallestRingBytes ? kSmallestRingBytes : ring_bytes / kRingChunkBytes * kRingChunkBytes;
        header->limit_bytes = kRingChunkBytes + header->ring_bytes;
        header->next_offset = kRingChunkBytes;
    }
    header->pid_space = pid_space();
    header->reserved_bytes = kPageBytes;
    header->next_process = header->next_stream = header->next_file = header->next_description = 1;

    const int fd = raw_open(temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) return fd;
    long result = raw_syscall(SYS_pwrite64, fd, page, sizeof(page), 0);
    if (result >= 0) result = result == static_cast<long>(sizeof(page)) ? 0 : -ENOSPC;
    raw_close(fd);
    if (result == 0) result = raw_syscall(SYS_linkat, AT_FDCWD, temporary, AT_FDCWD, path_, 0);
    raw_syscall(SYS_unlinkat, AT_FDCWD, temporary, 0);
    return static_cast<int>(result);
}

inline char *SpoolWriter::window(std::size_t index) noexcept {
    if (index >= kMostWindows) return nullptr;
    char *base = windows_[index].load(std::memory_order_acquire);
    if (base != nullptr) return base;
    const int fd = open_again();
    if (fd < 0) return nullptr;
    const long mapped = raw_syscall(SYS_mmap, nullptr, kWindowBytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
                                    fd, index * kWindowBytes);
    raw_close(fd);
    if (mapped < 0 && mapped > -4096) return nullptr;
    // Else a fault brings what lies about it into memory, page by page, and make_pages() finds it there in pieces.
    raw_syscall(SYS_madvise, mapped, kWindowBytes, MADV_RANDOM);
    char *mine = reinterpret_cast<char *>(mapped);
    if (!windows_[index].compare_exchange_strong(base, mine, std::memory_order_acq_rel)) {
        raw_syscall(SYS_munmap, mine, kWindowBytes);
        return base;
    }
    return mine;
}

// Nothing is claimed before it is reserved and mapped: a try that fails must neither use up the session's size nor
// leave a hole that would have to be filled once there is room again.
inline char *SpoolWriter::place_for(std::uint64_t offset, std::size_t bytes, Drop &why) noexcept {
    if (const int refused = reserve(offset + bytes); refused != 0) {
        // A user who may not, a root folder from which the name leads nowhere.
        const bool out_of_reach = refused == -EACCES || refused == -EPERM || refused == -ENOENT || refused == -ENOTDIR;
        why = out_of_reach ? Drop::no_mapping : Drop::no_space;
        return nullptr;
    }
    char *base = window(offset / kWindowBytes);
    if (base == nullptr) {
        why = Drop::no_mapping;
        return nullptr;
    }
    return base + offset % kWindowBytes;
}

inline char *SpoolWriter::try_claim(std::size_t bytes, std::uint64_t &offset, Drop &why) noexcept {
    std::uint64_t next = header_->next_offset.load(std::memory_order_relaxed);
    for (;;) {
        offset = next;
        if (offset / kWindowBytes != (offset + bytes - 1) / kWindowBytes) {
            offset = (offset / kWindowBytes + 1) * kWindowBytes;  // a chunk lies in one window
        }
        const std::uint64_t limit = header_->limit_bytes;
        if (offset > limit || bytes > limit - offset) {
            why = Drop::size_limit;
            return nullptr;
        }
        char *place = place_for(offset, bytes, why);
        if (place == nullptr) return nullptr;
        if (header_->next_offset.compare_exchange_weak(next, offset + bytes, std::memory_order_relaxed)) return place;
    }
}

// Fields of a chunk's header that others may look at while it changes hands.
inline std::int32_t load_relaxed(std::int32_t &field) noexcept {
    return std::atomic_ref<std::int32_t>(field).load(std::memory_order_relaxed);
}

// Makes the chunk this thread's if nobody writes into it. Its start is exchanged whole, with the number of the claim in
// it, so that what was read of the owner is about the claim that is replaced. Who `looks_closely` sees that an owner
// has ended whom nobody waited for.
inline bool SpoolWriter::take_in_ring(char *chunk, std::uint16_t &claim, bool looks_closely) noexcept {
    auto *header = reinterpret_cast<ChunkHeader *>(chunk);
    ChunkStart seen = chunk_start(*header).load(std::memory_order_acquire);
    const std::uint32_t magic = seen.magic;
    if (magic != 0 && magic != kLeftChunkMagic) {
        if (header_->foreign_pids.load(std::memory_order_relaxed) != 0) return false;
        const bool taking = is_ring_taking(magic);
        const std::int32_t tid =
            taking ? static_cast<std::int32_t>(magic & ~ring_taking(0)) : load_relaxed(header->tid);
        const long alive =
            taking ? raw_syscall(SYS_tkill, tid, 0) : raw_syscall(SYS_tgkill, load_relaxed(header->pid), tid, 0);
        if (alive != -ESRCH && !(looks_closely && has_ended(tid))) return false;
    }
    claim = static_cast<std::uint16_t>((seen.clock >> 1) + 1);
    const ChunkStart mine{ring_taking(static_cast<std::uint32_t>(raw_syscall(SYS_gettid))),
                          static_cast<std::uint16_t>(kFormatVersion), chunk_clock_and_claim(clock(), claim)};
    if (!chunk_start(*header).compare_exchange_strong(seen, mine, std::memory_order_acq_rel)) return false;
    if (magic != 0) std::memset(chunk + sizeof(*header), 0, kRingChunkBytes - sizeof(*header));
    return true;
}

inline char *SpoolWriter::try_claim_in_ring(std::uint64_t &offset, std::uint16_t &claim, Drop &why) noexcept {
    const std::uint64_t chunks = ring_bytes_ / kRingChunkBytes;
    // Where all seem to live some are looked at closely, which takes 10 us each.
    constexpr std::uint64_t kCloseLooks = 64;
    const std::uint64_t most = chunks + (chunks < kCloseLooks ? chunks : kCloseLooks);
    std::uint64_t position = header_->next_offset.load(std::memory_order_relaxed);
    for (std::uint64_t tries = 0; tries < most;) {
        offset = ring_offset(position, ring_bytes_);
        char *place = place_for(offset, kRingChunkBytes, why);
        if (place == nullptr) return nullptr;
        if (!header_->next_offset.compare_exchange_weak(position, position + kRingChunkBytes,
                                                        std::memory_order_relaxed)) {
            continue;
        }
        if (take_in_ring(place, claim, tries >= chunks)) return place;
        position += kRingChunkBytes;
        ++tries;
    }
    why = Drop::size_limit;  // every chunk is being written by a thread that lives
    return nullptr;
}

inline char *SpoolWriter::claim_chunk(std::size_t &bytes, std::size_t least_bytes, std::uint64_t &offset,
                                      std::uint16_t &claim) noexcept {
    Drop why{};
    char *chunk = nullptr;
    claim = 0;
    if (is_ring()) {
        bytes = kRingChunkBytes;
        chunk = try_claim_in_ring(offset, claim, why);
    } else {
        chunk = try_claim(bytes, offset, why);
        if (chunk == nullptr && bytes > least_bytes) {
            bytes = least_bytes;
            chunk = try_claim(bytes, offset, why);
        }
    }
    if (chunk == nullptr) {
        refusal_.store(why, std::memory_order_relaxed);
        retry_at_.store(ticks() + kRetryTicks, std::memory_order_relaxed);
        count_drop(why);
    }
    return chunk;
}

}  // namespace planloop::wire

#include "lockcore/wire/spool_growth.h"

#endif
