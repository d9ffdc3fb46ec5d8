// Which descriptors of which processes refer to an open file description that several processes may share. flock and
// OFD locks belong to the description, and the kernel names it nowhere: kcmp(2) can only say whether two descriptors
// mean the same one. So whoever makes a first lock call on a description that it may share puts a row down here, and
// whoever comes later compares its own descriptors with the rows, under whatever number it has the description.
//
// A row is one reference: process and descriptor. Rows whose descriptor is gone stay for a while as witnesses: the
// "lock:" line in another sharer's /proc/PID/fdinfo/FD names the taker of a flock, even when that is dead.
//
// One file a spool, next to it (`<spool>.shares`), made when the first such lock call happens and mapped by those who
// close, fork or exec after that. Pids count within a PID namespace, so rows carry it.
//
// Threads and processes: rows are read without a lock; `description` is stored last, and 0 while a row changes. Who
// names a description or adds a row takes its Turn; whoever dies in its turn is passed over. Async-signal-safe, no
// errno, no allocation. Errors: false or nullptr.
#ifndef PLANLOOP_LOCKCORE_WIRE_SHARE_TABLE_H
#define PLANLOOP_LOCKCORE_WIRE_SHARE_TABLE_H

#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lockcore/wire/spool_writer.h"

namespace planloop::wire {

struct Share {
    std::atomic<std::uint32_t> description;  // number in the spool; 0: no row, or being written
    std::uint32_t file;                      // FileBody::id
    std::uint64_t device;
    std::uint64_t inode;
    std::int32_t pid;
    std::atomic<std::int32_t> fd;  // kNoMore: the process let go of it
    std::uint32_t pid_namespace;   // inode of /proc/PID/ns/pid; 0: not known
    std::uint32_t sequence;        // rows are numbered as they are written
    std::uint32_t news;            // 1: processes that nobody asked yet may share it, so that a supervisor should look
};
static_assert(sizeof(Share) == 48);

struct ShareTableHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t rows;
    alignas(64) std::atomic<std::uint32_t> turn;  // tid of who names a description now; 0: nobody
    std::atomic<std::uint32_t> used;              // rows from here on were never written
    std::atomic<std::uint32_t> sequence;          // of the latest row
    std::atomic<std::uint32_t> news;              // of the latest row with news
};

enum class SameDescription : std::uint8_t { no, yes, gone, unknown };

// kcmp(2), KCMP_FILE. `gone`: one of the two is not open. Not always permitted.
inline SameDescription compare_descriptors(std::int32_t pid, int fd, std::int32_t other, int other_fd) noexcept {
    constexpr int kKcmpFile = 0;  // linux/kcmp.h
    const long order = raw_syscall(SYS_kcmp, pid, other, kKcmpFile, fd, other_fd);
    if (order == 0) return SameDescription::yes;
    if (order == -EBADF || order == -ESRCH) return SameDescription::gone;
    return order > 0 ? SameDescription::no : SameDescription::unknown;
}

inline constexpr int kKcmpVm = 1;  // linux/kcmp.h

// Asked in a way that a sandbox which lets descriptors be compared allows as well.
inline bool process_lives(std::int32_t pid) noexcept {
    return raw_syscall(SYS_kcmp, pid, pid, kKcmpVm, 0, 0) != -ESRCH;
}
// As a child of vfork and its parent do until it becomes another program.
inline bool same_memory(std::int32_t pid, std::int32_t other) noexcept {
    return raw_syscall(SYS_kcmp, pid, other, kKcmpVm, 0, 0) == 0;
}

inline std::uint32_t own_pid_namespace() noexcept {
    struct stat status {};
    if (raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/ns/pid", &status, 0) != 0) return 0;
    return static_cast<std::uint32_t>(status.st_ino);
}

// A descriptor as the table knows it.
struct ShareKey {
    std::uint64_t device;
    std::uint64_t inode;
    std::uint32_t pid_namespace;
    std::int32_t pid;
    int fd;
};

class ShareTable {
  public:
    static constexpr std::uint32_t kRows = 2048;
    static constexpr std::int32_t kNoMore = -1;
    static constexpr std::uint32_t kWitnesses = 64;  // rows that are kept after their descriptor has gone

    // The table next to the spool at `spool_path`; with `make` made if it is missing. 0 or a negative errno.
    int open(const char *spool_path, bool make) noexcept;
    bool is_open() const noexcept { return header_.load(std::memory_order_acquire) != nullptr; }

    // The row that refers to the same description as `key`, which is open; nullptr: none that can be compared with.
    Share *find(const ShareKey &key) noexcept;
    // The row of the process itself; nullptr: none.
    Share *find_own(const ShareKey &key) noexcept;
    // The newest row of that file by process `taker`, if that is gone, let go of it or may not be compared with: for a
    // flock whose line in fdinfo names it. nullptr also when the taker had several descriptions that it may be.
    Share *find_taker(const ShareKey &key, std::int32_t taker) noexcept;

    // A row for `key`, or the one that it has already, changed; nullptr: there is no room. In one's Turn.
    Share *put(const ShareKey &key, std::uint32_t description, std::uint32_t file, bool news) noexcept;
    // The process lets go of the descriptor.
    void release(const ShareKey &key) noexcept;

    // Calls visit(row) for every row in use, witnesses included.
    template <class Visit>
    void for_each(Visit visit) noexcept {
        ShareTableHeader *header = header_.load(std::memory_order_acquire);
        if (header == nullptr) return;
        Share *row = rows(header);
        const std::uint32_t used = header->used.load(std::memory_order_acquire);
        for (const Share *end = row + (used < kRows ? used : kRows); row != end; ++row) {
            if (row->description.load(std::memory_order_acquire) != 0) visit(*row);
        }
    }
    std::uint32_t latest_news() const noexcept {
        ShareTableHeader *header = header_.load(std::memory_order_acquire);
        return header == nullptr ? 0 : header->news.load(std::memory_order_acquire);
    }

    // Nobody else names a description or adds a row while this lives. Blocks signals.
    class Turn {
      public:
        explicit Turn(ShareTable &table) noexcept;
        ~Turn() noexcept;
        Turn(const Turn &) = delete;
        Turn &operator=(const Turn &) = delete;

      private:
        SignalsBlocked no_signals_;
        std::atomic<std::uint32_t> *word_ = nullptr;
        std::uint32_t tid_ = 0;
    };

  private:
    static constexpr char kMagic[8] = {'P', 'L', 'S', 'H', 'A', 'R', 'E', '\n'};
    static constexpr std::uint32_t kVersion = 1;
    static constexpr std::size_t kRowsAt = 128;
    static constexpr std::size_t kBytes = (kRowsAt + kRows * sizeof(Share) + kPageBytes - 1) / kPageBytes * kPageBytes;
    static_assert(sizeof(ShareTableHeader) <= kRowsAt);

    static Share *rows(ShareTableHeader *header) noexcept {
        return reinterpret_cast<Share *>(reinterpret_cast<char *>(header) + kRowsAt);
    }
    static bool of_file(const Share &row, const ShareKey &key) noexcept {
        return row.device == key.device && row.inode == key.inode;
    }
    // Whether somebody has that description still, and `key` is not it.
    bool is_another(std::uint32_t description, const ShareKey &key) noexcept;
    int create(const char *path) noexcept;
    int map(const char *path) noexcept;
    Share *place_for_another() noexcept;
    void retire_the_dead(std::uint32_t pid_namespace) noexcept;

    std::atomic<ShareTableHeader *> header_ = nullptr;
};

inline int ShareTable::open(const char *spool_path, bool make) noexcept {
    if (is_open()) return 0;
    constexpr char kEnding[] = ".shares";
    char path[SpoolWriter::kPathBytes + sizeof(kEnding)];
    const std::size_t length = std::strlen(spool_path);
    if (length >= SpoolWriter::kPathBytes) return -ENAMETOOLONG;
    std::memcpy(path, spool_path, length + 1);
    std::memcpy(path + length, kEnding, sizeof(kEnding));
    int result = map(path);
    if (result == -ENOENT && make) {
        result = create(path);
        if (result == 0 || result == -EEXIST) result = map(path);
    }
    return result;
}

inline int ShareTable::map(const char *path) noexcept {
    const int fd = raw_open(path, O_RDWR | O_NOFOLLOW);
    if (fd < 0) return fd;
    struct stat status {};
    long result = raw_syscall(SYS_fstat, fd, &status);
    if (result == 0 && (!S_ISREG(status.st_mode) || status.st_size < static_cast<off_t>(kBytes))) result = -EPROTO;
    if (result == 0) result = raw_syscall(SYS_mmap, nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    raw_close(fd);
    if (result < 0 && result > -4096) return static_cast<int>(result);
    auto *header = reinterpret_cast<ShareTableHeader *>(result);
    ShareTableHeader *nobody = nullptr;
    const bool ours =
        std::memcmp(header->magic, kMagic, sizeof(kMagic)) == 0 && header->version == kVersion && header->rows == kRows;
    if (!ours || !header_.compare_exchange_strong(nobody, header, std::memory_order_acq_rel)) {
        raw_syscall(SYS_munmap, header, kBytes);
    }
    return ours ? 0 : -EPROTO;
}

// Every byte is written before the file has its name: a store to a page without a block is SIGBUS.
inline int ShareTable::create(const char *path) noexcept {
    struct rlimit limit {};  // past it, a write is SIGXFSZ
    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, nullptr, &limit) == 0 && limit.rlim_cur < kBytes) return -EFBIG;
    char temporary[SpoolWriter::kPathBytes + 48];
    std::size_t length = std::strlen(path);
    std::memcpy(temporary, path, length);
    temporary[length++] = '.';
    auto unique = read_ticks(detect_clock()) << 16 ^ static_cast<std::uint64_t>(raw_syscall(SYS_gettid));
    for (; unique != 0; unique >>= 4) temporary[length++] = "0123456789abcdef"[unique & 15];
    temporary[length] = '\0';

    alignas(ShareTableHeader) char page[kPageBytes] = {};
    auto *header = new (page) ShareTableHeader{};
    std::memcpy(header->magic, kMagic, sizeof(kMagic));
    header->version = kVersion;
    header->rows = kRows;
    const int fd = raw_open(temporary, O_RDWR | O_CREAT | O_EXCL, 0600);
    if (fd < 0) return fd;
    long result = 0;
    for (std::size_t at = 0; at < kBytes && result >= 0; at += kPageBytes) {
        result = raw_syscall(SYS_pwrite64, fd, page, kPageBytes, at);
        if (result >= 0 && result != static_cast<long>(kPageBytes)) result = -ENOSPC;
        if (at == 0) std::memset(page, 0, sizeof(page));
    }
    raw_close(fd);
    if (result >= 0) result = raw_syscall(SYS_linkat, AT_FDCWD, temporary, AT_FDCWD, path, 0);
    raw_syscall(SYS_unlinkat, AT_FDCWD, temporary, 0);
    return static_cast<int>(result);
}

inline ShareTable::Turn::Turn(ShareTable &table) noexcept {
    ShareTableHeader *header = table.header_.load(std::memory_order_acquire);
    if (header == nullptr) return;
    word_ = &header->turn;
    tid_ = static_cast<std::uint32_t>(raw_syscall(SYS_gettid));
    constexpr int kPatience = 20'000;  // yields; a turn takes microseconds, unless its owner died or was stopped
    for (int waited = 0;; ++waited) {
        std::uint32_t owner = word_->load(std::memory_order_relaxed);
        if (owner != 0 && waited < kPatience) {
            raw_syscall(SYS_sched_yield);
            continue;
        }
        if (word_->compare_exchange_strong(owner, tid_, std::memory_order_acquire)) return;
        waited = 0;
    }
}

inline ShareTable::Turn::~Turn() noexcept {
    if (word_ != nullptr) word_->compare_exchange_strong(tid_, 0, std::memory_order_release);
}

inline Share *ShareTable::find_own(const ShareKey &key) noexcept {
    Share *found = nullptr;
    for_each([&](Share &row) {
        if (row.pid == key.pid && row.fd.load(std::memory_order_relaxed) == key.fd && of_file(row, key) &&
            row.pid_namespace == key.pid_namespace) {
            found = &row;
        }
    });
    return found;
}

inline Share *ShareTable::find(const ShareKey &key) noexcept {
    if (Share *own = find_own(key)) return own;
    Share *found = nullptr;
    for_each([&](Share &row) {
        const std::int32_t fd = row.fd.load(std::memory_order_relaxed);
        if (found != nullptr || fd == kNoMore || !of_file(row, key) || row.pid_namespace != key.pid_namespace) return;
        const SameDescription same = compare_descriptors(key.pid, key.fd, row.pid, fd);
        if (same == SameDescription::yes) found = &row;
        // Which of the two is gone? Another thread may be closing ours.
        if (same == SameDescription::gone &&
            compare_descriptors(key.pid, key.fd, key.pid, key.fd) == SameDescription::yes) {
            row.fd.store(kNoMore, std::memory_order_relaxed);
        }
    });
    return found;
}

inline Share *ShareTable::find_taker(const ShareKey &key, std::int32_t taker) noexcept {
    Share *found = nullptr;
    bool several = false;
    for_each([&](Share &row) {
        if (row.pid != taker || row.pid_namespace != key.pid_namespace || !of_file(row, key)) return;
        // What is open in who lives has been compared with. It may have locked another description of the file.
        const std::int32_t fd = row.fd.load(std::memory_order_relaxed);
        if (fd != kNoMore && process_lives(taker) &&
            compare_descriptors(key.pid, key.fd, taker, fd) != SameDescription::unknown) {
            return;
        }
        if (is_another(row.description.load(std::memory_order_relaxed), key)) return;
        if (found == nullptr) {
            found = &row;
            return;
        }
        several = several ||
                  row.description.load(std::memory_order_relaxed) != found->description.load(std::memory_order_relaxed);
        if (row.sequence - found->sequence < ~std::uint32_t{0} / 2) found = &row;
    });
    return several ? nullptr : found;
}

inline bool ShareTable::is_another(std::uint32_t description, const ShareKey &key) noexcept {
    bool another = false;
    for_each([&](Share &row) {
        const std::int32_t fd = row.fd.load(std::memory_order_relaxed);
        if (another || fd == kNoMore || row.description.load(std::memory_order_relaxed) != description ||
            !of_file(row, key) || row.pid_namespace != key.pid_namespace) {
            return;
        }
        another = compare_descriptors(key.pid, key.fd, row.pid, fd) == SameDescription::no;
    });
    return another;
}

inline void ShareTable::retire_the_dead(std::uint32_t pid_namespace) noexcept {
    for_each([&](Share &row) {
        if (row.pid_namespace != pid_namespace || row.fd.load(std::memory_order_relaxed) == kNoMore) return;
        if (!process_lives(row.pid)) row.fd.store(kNoMore, std::memory_order_relaxed);
    });
}

// A row that no witness is needed from any more, or a fresh one.
inline Share *ShareTable::place_for_another() noexcept {
    ShareTableHeader *header = header_.load(std::memory_order_acquire);
    const std::uint32_t now = header->sequence.load(std::memory_order_relaxed);
    Share *place = nullptr;
    for_each([&](Share &row) {
        if (place == nullptr && row.fd.load(std::memory_order_relaxed) == kNoMore && now - row.sequence >= kWitnesses) {
            place = &row;
        }
    });
    if (place != nullptr) return place;
    const std::uint32_t used = header->used.load(std::memory_order_relaxed);
    return used < kRows ? rows(header) + used : nullptr;
}

inline Share *ShareTable::put(const ShareKey &key, std::uint32_t description, std::uint32_t file, bool news) noexcept {
    ShareTableHeader *header = header_.load(std::memory_order_acquire);
    if (header == nullptr) return nullptr;
    Share *row = nullptr;
    for_each([&](Share &each) {  // the number may have meant another file before
        if (each.pid == key.pid && each.fd.load(std::memory_order_relaxed) == key.fd &&
            each.pid_namespace == key.pid_namespace) {
            row = &each;
        }
    });
    if (row == nullptr) {
        const std::uint32_t used = header->used.load(std::memory_order_relaxed);
        row = place_for_another();
        // Before the table grows to twice its size, and when it is full, the rows of those who were killed are freed.
        constexpr std::uint32_t kFew = 64;
        if (row == nullptr || (row == rows(header) + used && used >= kFew && (used & (used - 1)) == 0)) {
            retire_the_dead(key.pid_namespace);
            row = place_for_another();
        }
        if (row == nullptr) return nullptr;
    }
    row->description.store(0, std::memory_order_release);
    row->file = file;
    row->device = key.device;
    row->inode = key.inode;
    row->pid = key.pid;
    row->pid_namespace = key.pid_namespace;
    row->news = news ? 1 : 0;
    row->fd.store(key.fd, std::memory_order_relaxed);
    row->sequence = header->sequence.fetch_add(1, std::memory_order_relaxed) + 1;
    row->description.store(description, std::memory_order_release);
    const auto place = static_cast<std::uint32_t>(row - rows(header));
    if (place >= header->used.load(std::memory_order_relaxed)) header->used.store(place + 1, std::memory_order_release);
    if (news) header->news.store(row->sequence, std::memory_order_release);
    return row;
}

inline void ShareTable::release(const ShareKey &key) noexcept {
    if (Share *row = find_own(key)) row->fd.store(kNoMore, std::memory_order_relaxed);
}

}  // namespace planloop::wire

#endif
