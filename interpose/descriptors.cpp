#include "interpose/descriptors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>

#include <cstring>

#include "interpose/proc_files.h"
#include "interpose/real.h"
#include "interpose/shares.h"
#include "lockcore/wire/file_identity.h"

namespace planloop::shim {

std::atomic<DescriptorPage *> descriptor_pages[kMostDescriptors / kDescriptorsPerPage];
// Among initialised data, which a start writes to anyway: its end looks here.
__attribute__((section(".data"))) std::atomic<std::uint64_t> tracked_mask{0};
std::atomic<std::uint64_t> noted_open{~std::uint64_t{0}};
std::atomic<std::uint32_t> children_made{1};
std::atomic<std::uint32_t> ours_after[kNumbered];
std::atomic<bool> any_ours{true};
std::atomic<std::uint64_t> compared{0};
std::atomic<bool> compared_high{false};
std::atomic<std::uint32_t> compared_as_of{0};
std::atomic<std::uint32_t> compared_after[kNumbered];
// Bit fd % 64: copied while nothing was known of it.
__attribute__((section(".data"))) std::atomic<std::uint64_t> copied_mask{0};

namespace {

std::atomic<bool> posix_locks_taken;      // once true, every close has to look
std::atomic<bool> posix_locks_forgotten;  // on a file that did not fit into known_files

// Files this process image has seen, so that a file is recorded once. A full table, or an entry that another thread or
// the code below a signal handler is changing, only costs a repeated record.
struct KnownFile {
    std::atomic<std::uint32_t> number;  // 0: free; kBusy: being changed
    std::atomic<bool> posix_locked;
    std::atomic<std::int32_t> fd;  // a descriptor that was tracked for it; perhaps no more
    std::atomic<std::uint64_t> device;
    std::atomic<std::uint64_t> inode;
    std::atomic<std::uint64_t> generation;
    std::atomic<std::int64_t> old_change_ns;  // see is_unchanged(); 0: none
};
constexpr std::uint32_t kBusy = ~0u;
constexpr std::size_t kKnownFiles = 4096;  // untouched, they cost nothing
KnownFile known_files[kKnownFiles];

Descriptor *slot_for(int fd) noexcept {
    if (static_cast<unsigned>(fd) >= static_cast<unsigned>(kMostDescriptors)) return nullptr;
    std::atomic<DescriptorPage *> &place = descriptor_pages[fd / kDescriptorsPerPage];
    DescriptorPage *page = place.load(std::memory_order_acquire);
    if (page == nullptr) {
        const long mapped = wire::raw_syscall(SYS_mmap, nullptr, sizeof(DescriptorPage), PROT_READ | PROT_WRITE,
                                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (mapped < 0 && mapped > -4096) return nullptr;
        auto *mine = reinterpret_cast<DescriptorPage *>(mapped);
        if (place.compare_exchange_strong(page, mine, std::memory_order_acq_rel)) {
            page = mine;
        } else {
            wire::raw_syscall(SYS_munmap, mapped, sizeof(DescriptorPage));
        }
    }
    return &page->descriptors[fd % kDescriptorsPerPage];
}

void set_known_file(KnownFile &file, std::uint32_t number, std::uint64_t device, std::uint64_t inode,
                    std::uint64_t generation) noexcept {
    std::uint32_t before = file.number.load(std::memory_order_acquire);
    if (before == kBusy || !file.number.compare_exchange_strong(before, kBusy)) return;
    file.device.store(device, std::memory_order_relaxed);
    file.inode.store(inode, std::memory_order_relaxed);
    file.generation.store(generation, std::memory_order_relaxed);
    file.old_change_ns.store(0, std::memory_order_relaxed);
    file.posix_locked.store(false, std::memory_order_relaxed);
    file.fd.store(-1, std::memory_order_relaxed);
    file.number.store(number, std::memory_order_release);
}

// The entry of a file, or a free one for it; nullptr: the table is full there.
KnownFile *known_file(std::uint64_t device, std::uint64_t inode) noexcept {
    std::size_t at = static_cast<std::size_t>((inode * 0x9e3779b97f4a7c15u ^ device) >> 20) % kKnownFiles;
    for (std::size_t probes = 0; probes < 8; ++probes, at = (at + 1) % kKnownFiles) {
        KnownFile &file = known_files[at];
        const std::uint32_t number = file.number.load(std::memory_order_acquire);
        if (number == 0) return &file;
        if (number != kBusy && file.device.load(std::memory_order_relaxed) == device &&
            file.inode.load(std::memory_order_relaxed) == inode) {
            return &file;
        }
    }
    return nullptr;
}

void record_file(Thread &me, int fd, const wire::FileBody &body, std::uint8_t flags = 0) noexcept {
    char link[32];
    Text(link, sizeof(link)) << "/proc/self/fd/" << static_cast<std::uint64_t>(fd);
    char path[4096];
    const std::size_t path_length = read_link(link, path, sizeof(path));
    const wire::TextPiece pieces[] = {{&body, sizeof(body)}, {path, path_length}, {"", 1}};
    wire::Record *record = me.stream.claim_with_text(process.spool, me.who(process), pieces, 3);
    if (record == nullptr) return;
    record->kind = wire::RecordKind::file;
    record->flags = flags;
    record->file = body.id;
    record->fd = fd;
    record->begin = process.spool.ticks();
    me.stream.publish(record, wire::State::complete);
    me.ring_files[body.id % kRingFiles] = me.stream.chunk_number() == me.ring_chunk ? body.id : 0;
}

// Whether another descriptor of this process may be tracked for the same file: a hint that spares looking at them all
// in the common case, one descriptor for each file.
bool another_descriptor_of(int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    const KnownFile *file = known_file(device, inode);
    if (file == nullptr) return true;
    const std::int32_t other = file->fd.load(std::memory_order_relaxed);
    if (file->number.load(std::memory_order_acquire) == 0 || other < 0 || other == fd) return false;
    const Descriptor *descriptor = find_descriptor(other);
    return descriptor != nullptr && descriptor->device == device && descriptor->inode == inode;
}

}  // namespace

std::atomic<const std::atomic<std::uint64_t> *> shares_about{&kNothingShared};

namespace {

std::int64_t change_ns(const struct stat &status) noexcept {
    return std::int64_t{status.st_ctim.tv_sec} * 1'000'000'000 + status.st_ctim.tv_nsec;
}

// Whether a file with the device and inode number of `file` is that very file, without asking for its generation: a
// file that is made anew is younger than what it replaces. A change time is remembered only when it lay seconds back at
// a moment at which the file was seen; whatever got its inode number after that moment has a later one, however coarse
// the file system's clock is. Only of local file systems, which know generations: another machine's clock may be
// behind.
bool is_unchanged(const KnownFile &file, const struct stat &status) noexcept {
    const std::int64_t known = file.old_change_ns.load(std::memory_order_acquire);  // before the number is read
    return known != 0 && known == change_ns(status);
}

void note_change_time(KnownFile &file, const struct stat &status, std::uint64_t generation) noexcept {
    constexpr std::int64_t kOldInTicks = 50'000'000;       // the kernel's clock goes in steps of 10 ms at the most
    constexpr std::int64_t kOldInSeconds = 3'000'000'000;  // inodes of 128 bytes have whole seconds
    timespec now{};
    if (generation == 0 || generation > ~std::uint32_t{0} || clock_gettime(CLOCK_REALTIME_COARSE, &now) != 0) return;
    const std::int64_t now_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    const bool old = now_ns - change_ns(status) > (status.st_ctim.tv_nsec != 0 ? kOldInTicks : kOldInSeconds);
    file.old_change_ns.store(old ? change_ns(status) : 0, std::memory_order_release);
}

}  // namespace

std::uint32_t file_number(Thread &me, int fd, const struct stat &status) noexcept {
    KnownFile *file = known_file(status.st_dev, status.st_ino);
    const bool unchanged = file != nullptr && is_unchanged(*file, status);
    std::uint32_t number = file != nullptr ? file->number.load(std::memory_order_acquire) : 0;
    if (unchanged && number != 0 && number != kBusy) return number;
    const std::uint64_t generation = wire::file_generation(fd, status.st_mode);
    if (number == 0 || number == kBusy || file->generation.load(std::memory_order_relaxed) != generation) {
        number = process.spool.header().next_file.fetch_add(1, std::memory_order_relaxed);
        record_file(me, fd, {number, status.st_mode, status.st_dev, status.st_ino, generation});
        if (file != nullptr) set_known_file(*file, number, status.st_dev, status.st_ino, generation);
    }
    if (file != nullptr) note_change_time(*file, status, generation);
    return number;
}

void repeat_file(Thread &me, int fd, std::uint32_t file) noexcept {
    struct stat status {};
    const Descriptor *descriptor = find_descriptor(fd);
    me.ring_files[file % kRingFiles] = file;  // also where it cannot be said: another thread is closing the descriptor
    if (wire::raw_syscall(SYS_fstat, fd, &status) != 0 || descriptor == nullptr ||
        descriptor->device != status.st_dev || descriptor->inode != status.st_ino) {
        return;
    }
    const std::uint64_t generation = wire::file_generation(fd, status.st_mode);
    record_file(me, fd, {file, status.st_mode, status.st_dev, status.st_ino, generation}, wire::kRepeated);
}

Identity identify_slowly(Thread &me, int fd, wire::Family family) noexcept {
    struct stat status {};
    if (wire::raw_syscall(SYS_fstat, fd, &status) != 0) {
        untrack(fd);
        return {};
    }
    if (Descriptor *descriptor = find_descriptor(fd)) {
        if (descriptor->device == status.st_dev && descriptor->inode == status.st_ino) {
            if (to_be_named(*descriptor, family)) return name_description(me, fd);
            return Identity::unpack(descriptor->ids.load(std::memory_order_relaxed));
        }
        write_note(me, {.kind = wire::RecordKind::close,
                        .fd = fd,
                        .description = Identity::unpack(descriptor->ids.load(std::memory_order_relaxed)).description,
                        .a = static_cast<std::uint64_t>(wire::CloseCause::unseen)});
        untrack(fd);
    }
    Identity identity;
    identity.file = file_number(me, fd, status);
    if (another_descriptor_of(fd, status.st_dev, status.st_ino)) {
        identity.description = description_of_copy(fd, status.st_dev, status.st_ino);
    }
    if (identity.description == 0) {
        identity.description = process.spool.header().next_description.fetch_add(1, std::memory_order_relaxed);
    }
    track(fd, identity, status.st_dev, status.st_ino,
          perhaps_shared(fd) ? Descriptor::found_open : Descriptor::opened_here);
    if (KnownFile *file = known_file(status.st_dev, status.st_ino)) file->fd.store(fd, std::memory_order_relaxed);
    if (to_be_named(*find_descriptor(fd), family)) return name_description(me, fd);
    if ((copied_mask.load(std::memory_order_relaxed) >> (static_cast<unsigned>(fd) % 64) & 1) != 0) {
        track_copies(me, fd);
    }
    return identity;
}

void track(int fd, Identity identity, std::uint64_t device, std::uint64_t inode,
           Descriptor::Provenance provenance) noexcept {
    Descriptor *descriptor = slot_for(fd);
    if (descriptor == nullptr) return;
    descriptor->device = device;
    descriptor->inode = inode;
    descriptor->provenance.store(provenance, std::memory_order_relaxed);
    if (descriptor->ids.load(std::memory_order_relaxed) == 0) {
        descriptor->posix_noted.store(0, std::memory_order_relaxed);
    }
    descriptor->ids.store(identity.packed(), std::memory_order_release);
    tracked_mask.fetch_or(std::uint64_t{1} << (static_cast<unsigned>(fd) % 64), std::memory_order_relaxed);
}

void track_copy(int original, int copy) noexcept {
    const Descriptor *from = find_descriptor(original);
    if (from == nullptr) return;
    track(copy, Identity::unpack(from->ids.load(std::memory_order_relaxed)), from->device, from->inode,
          static_cast<Descriptor::Provenance>(from->provenance.load(std::memory_order_relaxed)));
}

void untrack(int fd) noexcept {
    forget_noted(fd);
    if (Descriptor *descriptor = find_descriptor(fd)) descriptor->ids.store(0, std::memory_order_release);
}

bool is_lockable(int fd) noexcept {
    struct stat status {};
    return wire::raw_syscall(SYS_fstat, fd, &status) == 0 && !S_ISFIFO(status.st_mode) && !S_ISSOCK(status.st_mode);
}

PLANLOOP_AT_START void note_descriptors_at_start() noexcept {
    // Shells, jobs of CI and editors leave a high-numbered pipe to all that they start: it shares no lock.
    const OpenDescriptors open = open_descriptors(is_lockable);
    noted_open.store(open.low, std::memory_order_relaxed);
    children_made.store(open.high_matter ? 1 : 0, std::memory_order_relaxed);
}

void note_perhaps_shared(int fd) noexcept {
    if (const std::uint64_t bit = noted_bit(fd)) {
        noted_open.fetch_or(bit, std::memory_order_relaxed);
        return;
    }
    constexpr std::uint32_t kNever = ~0u;
    std::uint32_t none = 0;
    children_made.compare_exchange_strong(none, 1, std::memory_order_relaxed);  // those beyond kNumbered, too
    if (static_cast<unsigned>(fd) < static_cast<unsigned>(kNumbered)) {
        ours_after[fd].store(kNever, std::memory_order_relaxed);
    }
    compared_high.store(false, std::memory_order_relaxed);
}

void note_copy_of_shared(int original, int copy) noexcept {
    forget_noted(copy);
    note_perhaps_shared(copy);
    const auto most = static_cast<unsigned>(kNumbered);
    if (thread.vfork_parent != 0 || static_cast<unsigned>(original) >= most || static_cast<unsigned>(copy) >= most)
        return;
    // What was found of the one holds for the other.
    if ((compared.load(std::memory_order_relaxed) & noted_bit(original)) != 0) {
        compared.fetch_or(noted_bit(copy), std::memory_order_relaxed);
    }
    compared_after[copy].store(compared_after[original].load(std::memory_order_relaxed), std::memory_order_relaxed);
}

PLANLOOP_AT_START bool has_lockable_descriptors() noexcept {
    constexpr std::uint64_t kStandardStreams = 7;
    if (children_made.load(std::memory_order_relaxed) != 0) return true;  // of a high number
    for (std::uint64_t bits = noted_open.load(std::memory_order_relaxed) & ~kStandardStreams; bits != 0;
         bits &= bits - 1) {
        if (is_lockable(__builtin_ctzll(bits))) return true;
    }
    return false;
}

void note_descriptors_for_child() noexcept {
    // What is as it was is not written: after a fork each page that is written to costs a fault.
    const std::uint64_t open = open_among_64(0);
    if ((open & ~noted_open.load(std::memory_order_relaxed)) != 0) noted_open.fetch_or(open, std::memory_order_relaxed);
    if (!any_ours.load(std::memory_order_acquire)) return;
    any_ours.store(false, std::memory_order_relaxed);
    children_made.fetch_add(1, std::memory_order_release);
}

void note_posix_lock(int fd, std::uint32_t file) noexcept {
    Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr || descriptor->posix_noted.load(std::memory_order_relaxed) != 0) return;
    descriptor->posix_noted.store(1, std::memory_order_relaxed);
    struct stat status {};
    KnownFile *known = known_file(descriptor->device, descriptor->inode);
    // A descriptor that came over exec brought its file's number along, and this image has not seen the file yet.
    if (known != nullptr && known->number.load(std::memory_order_acquire) == 0 &&
        wire::raw_syscall(SYS_fstat, fd, &status) == 0) {
        set_known_file(*known, file, descriptor->device, descriptor->inode, wire::file_generation(fd, status.st_mode));
    }
    if (known != nullptr) {
        known->posix_locked.store(true, std::memory_order_relaxed);
    } else {
        posix_locks_forgotten.store(true, std::memory_order_relaxed);
    }
    if (posix_locks_taken.exchange(true)) return;
    tracked_mask.store(~std::uint64_t{0}, std::memory_order_relaxed);
}

std::uint32_t posix_locked_file(std::uint64_t device, std::uint64_t inode) noexcept {
    const KnownFile *known = known_file(device, inode);
    if (known == nullptr) return 0;
    const std::uint32_t number = known->number.load(std::memory_order_acquire);
    return number != kBusy && known->posix_locked.load(std::memory_order_relaxed) ? number : 0;
}

std::uint32_t posix_locked_file(int fd) noexcept {
    struct stat status {};
    if (!posix_locks_taken.load(std::memory_order_relaxed) || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return 0;
    const std::uint32_t number = posix_locked_file(status.st_dev, status.st_ino);
    if (number == 0 && !posix_locks_forgotten.load(std::memory_order_relaxed)) return 0;
    const long flags = wire::raw_syscall(SYS_fcntl, fd, F_GETFL);
    if (flags >= 0 && (flags & O_PATH) != 0) return 0;  // fs/open.c filp_flush(): its close drops no locks
    if (number != 0) return number;
    // It may be one of the files that there was no room to remember: named anew, the analysis knows whether it is.
    Thread &me = thread;
    if (known_file(status.st_dev, status.st_ino) != nullptr || !S_ISREG(status.st_mode) || !enter(me)) return 0;
    return file_number(me, fd, status);
}

}  // namespace planloop::shim
