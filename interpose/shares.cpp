#include "interpose/shares.h"

#include <sys/stat.h>

#include <cstring>

#include "interpose/introduction.h"
#include "interpose/proc_files.h"
#include "interpose/settings.h"
#include "interpose/sharing_mark.h"
#include "lockcore/wire/share_table.h"

namespace planloop::shim {

namespace {

using wire::SameDescription;

wire::ShareTable table;

std::int32_t own_pid() noexcept {
    return static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
}

bool open_table(bool make) noexcept {
    return table.is_open() || (open_spool() && table.open(process.spool.path(), make) == 0);
}

wire::ShareKey key_of(std::int32_t pid, int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    return {device, inode, pid_namespace(), pid, fd};
}
wire::ShareKey key_of(int fd, const Descriptor &descriptor) noexcept {
    return key_of(own_pid(), fd, descriptor.device, descriptor.inode);
}

// One "lock:" line of /proc/PID/fdinfo/FD: "lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF".
struct LockLine {
    wire::Family family;
    std::int32_t taker;  // -1 for OFD locks: they have no process
    std::uint64_t inode;
};

// Calls visit(LockLine) for each flock and OFD lock that hangs on a descriptor of a process, as the kernel tells it.
template <class Visit>
void for_each_lock_line(std::int32_t pid, int fd, Visit visit) noexcept {
    char info[2048];
    read_text(ProcPath(pid, "fdinfo", fd).c_str(), info, sizeof(info));
    for (const char *line = std::strstr(info, "lock:"); line != nullptr; line = std::strstr(line + 5, "lock:")) {
        const char *word = next_word(skip_spaces(line + 5));  // past the number
        LockLine found{wire::Family::flock, -1, 0};
        if (std::strncmp(word, "OFDLCK", 6) == 0) {
            found.family = wire::Family::ofd;
        } else if (std::strncmp(word, "FLOCK", 5) != 0) {
            continue;
        }
        word = next_word(next_word(next_word(word)));  // past family, ADVISORY and mode
        if (*word != '-') found.taker = static_cast<std::int32_t>(take_number(word));
        word = next_word(word);
        for (int colons = 0; *word != '\0' && colons < 2; ++word) colons += *word == ':';
        found.inode = take_number(word);
        visit(found);
    }
}

// The row of the description of `key`: by comparing, and where everybody to compare with is gone, by the lock on it.
wire::Share *find_row(const wire::ShareKey &key) noexcept {
    bool any = false;
    table.for_each([&](const wire::Share &row) { any = any || (row.device == key.device && row.inode == key.inode); });
    if (!any) return nullptr;
    if (wire::Share *row = table.find(key)) return row;
    wire::Share *found = nullptr;
    for_each_lock_line(key.pid, key.fd, [&](const LockLine &line) {
        if (found != nullptr || line.inode != key.inode || line.family != wire::Family::flock) return;
        found = table.find_taker(key, line.taker);
    });
    return found;
}

bool put_row(const wire::ShareKey &key, Identity identity, bool news) noexcept {
    if (table.put(key, identity.description, identity.file, news) == nullptr) {
        process.spool.count_drop(wire::Drop::untold_share);
        return false;
    }
    std::atomic<std::uint64_t> &about = process.spool.header().shares_about;
    if (about.load(std::memory_order_relaxed) != 0) return true;
    if (!mark_sharing()) process.spool.count_drop(wire::Drop::untold_share);
    about.store(~std::uint64_t{0}, std::memory_order_seq_cst);
    return true;
}

Identity identity_of(const Descriptor &descriptor) noexcept {
    return Identity::unpack(descriptor.ids.load(std::memory_order_relaxed));
}

}  // namespace

std::uint32_t pid_namespace() noexcept {
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr) return wire::own_pid_namespace();
    std::uint32_t known = page->pid_namespace.load(std::memory_order_relaxed);
    if (known != 0) return known;
    // A child is in its parent's if it can see it there; a parent that is the first one in it is seen by that number in
    // many. Asking /proc about a new process costs 13 us.
    const std::int32_t parent = process.asked_by.load(std::memory_order_acquire);
    if (parent > 1 && wire::raw_syscall(SYS_getppid) == parent) {
        known = process.pid_namespace.load(std::memory_order_relaxed);
    }
    if (known == 0) known = wire::own_pid_namespace();
    process.asked_by.store(0, std::memory_order_release);
    process.pid_namespace.store(known, std::memory_order_release);
    process.asked_by.store(own_pid(), std::memory_order_release);
    page->pid_namespace.store(known, std::memory_order_relaxed);
    return known;
}

bool same_description(int fd, int other) noexcept {
    const std::int32_t self = own_pid();
    return wire::compare_descriptors(self, fd, self, other) == SameDescription::yes;
}

std::uint32_t description_of_copy(int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    std::uint32_t description = 0;
    for_each_tracked([&](int other, const Descriptor &descriptor) {
        if (description != 0 || other == fd || descriptor.device != device || descriptor.inode != inode) return;
        if (same_description(fd, other)) description = identity_of(descriptor).description;
    });
    return description;
}

void track_copies(Thread &me, int fd) noexcept {
    const Descriptor *original = find_descriptor(fd);
    if (original == nullptr) return;
    const Identity identity = identity_of(*original);
    const bool shared = original->provenance.load(std::memory_order_relaxed) >= Descriptor::named;
    for_each_open_descriptor([&](int other) {
        if (other == fd) return;
        const Descriptor *known = find_descriptor(other);
        if (known != nullptr && (identity_of(*known).packed() == identity.packed() ||
                                 known->device != original->device || known->inode != original->inode)) {
            return;
        }
        if (!same_description(fd, other)) return;
        track_copy(fd, other);
        if (shared) share_copy(other);
        write_note(me, {.kind = wire::RecordKind::duplicate,
                        .fd = fd,
                        .file = identity.file,
                        .description = identity.description,
                        .a = static_cast<std::uint64_t>(other)});
    });
}

Identity name_description(Thread &me, int fd) noexcept {
    Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr) return {};
    const Identity before = identity_of(*descriptor);
    Identity identity = before;
    Descriptor::Provenance provenance = Descriptor::named;
    const auto note = [&] {
        write_note(me, {.kind = wire::RecordKind::duplicate,
                        .fd = fd,
                        .file = identity.file,
                        .description = identity.description,
                        .a = static_cast<std::uint64_t>(fd)});
    };
    if (open_table(true)) {
        const wire::ShareTable::Turn turn(table);
        const wire::ShareKey key = key_of(fd, *descriptor);
        const wire::Share *row = find_row(key);
        if (row != nullptr) {
            identity = {row->file, row->description.load(std::memory_order_acquire)};
            // What the image before this one put down says nothing of whether it looked who shares.
            const bool own = row->pid == key.pid && row->fd.load(std::memory_order_relaxed) == fd;
            if (!own) provenance = Descriptor::inherited;
        }
        note();  // before the row: what a supervisor then finds must be about a description that the trace knows
        put_row(key, identity, row == nullptr);
    } else {
        process.spool.count_drop(wire::Drop::untold_share);
    }
    if (identity.packed() != before.packed()) track(fd, identity, descriptor->device, descriptor->inode, provenance);
    descriptor->provenance.store(provenance, std::memory_order_relaxed);
    track_copies(me, fd);
    return identity;
}

namespace {

struct Relative {
    std::int32_t pid;
    int fd;  // -1: it does not share
};

// Under which number `pid` has the description of `fd`, on which this process has just taken a lock: most often the
// same one.
Relative find_share(std::int32_t pid, int fd, const Descriptor &descriptor, wire::Family family) noexcept {
    const auto shares = [&](int other) {
        const SameDescription same = wire::compare_descriptors(process.identity.pid, fd, pid, other);
        if (same != SameDescription::unknown) return same == SameDescription::yes;
        bool named = false;
        for_each_lock_line(pid, other, [&](const LockLine &line) {
            named = named ||
                    (line.family == family && line.inode == descriptor.inode && line.taker == process.identity.pid);
        });
        return named;
    };
    if (shares(fd)) return {pid, fd};
    Relative found{pid, -1};
    for_each_open_descriptor(pid, [&](int other) {
        if (found.fd < 0 && other != fd && shares(other)) found.fd = other;
    });
    return found;
}

// Calls visit(pid) for this process's descendants, as far as the kernel lists them and some dozens.
template <class Visit>
void for_each_descendant(Visit visit) noexcept {
    constexpr int kMost = 64;
    std::int32_t pids[kMost];
    int count = 0;
    const auto add = [&](std::int32_t pid) {
        for (int i = 0; i < count; ++i)
            if (pids[i] == pid) return;
        if (pid > 0 && count < kMost) pids[count++] = pid;
    };
    const auto add_children = [&](std::int32_t pid) {
        if (!proc_has_our_pids()) return;
        char text[1024];
        char path[64];
        Text(path, sizeof(path)) << "/proc/" << static_cast<std::uint64_t>(pid) << "/task/"
                                 << static_cast<std::uint64_t>(pid) << "/children";
        read_text(path, text, sizeof(text));
        for (const char *word = text; *word >= '0' && *word <= '9'; word = skip_spaces(word)) {
            const auto child = static_cast<std::int32_t>(take_number(word));
            if (*word != '\0') add(child);  // else its last digits may be cut off
        }
    };
    // Children of other threads than the first are listed elsewhere, and in some places the kernel lists none.
    for (std::atomic<std::int32_t> &child : process.page.load(std::memory_order_acquire)->children)
        add(child.load(std::memory_order_relaxed));
    add_children(process.identity.pid);
    for (int i = 0; i < count; ++i) {
        visit(pids[i]);
        add_children(pids[i]);
    }
}

// The machine's init shares nothing with anybody; in a namespace of its own, 1 may be a script that locks.
std::int32_t first_sharer() noexcept {
    constexpr std::uint32_t kInitialPidNamespace = 0xeffffffc;  // linux/proc_ns.h PROC_PID_INIT_INO
    return pid_namespace() == kInitialPidNamespace ? 2 : 1;
}

// Records that `pid` shares the description of `fd`, if it does.
bool look_at_relative(Thread &me, std::int32_t pid, int fd, const Descriptor &descriptor,
                      wire::Family family) noexcept {
    if (pid < first_sharer() || pid == process.identity.pid) return false;
    const std::uint64_t now = process.spool.ticks();  // before the look: it may close the descriptor after it
    const Relative relative = find_share(pid, fd, descriptor, family);
    if (relative.fd < 0) return false;
    const Identity identity = identity_of(descriptor);
    announce_sharing(pid);
    introduce_sharer(me, {pid, relative.fd}, now, family, fd, identity);
    if (open_table(true)) {
        const wire::ShareTable::Turn turn(table);
        put_row(key_of(pid, relative.fd, descriptor.device, descriptor.inode), identity, false);
    }
    return true;
}

}  // namespace

void look_for_sharers(Thread &me, int fd, wire::Family family) noexcept {
    Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr) return;
    descriptor->provenance.store(Descriptor::inherited, std::memory_order_relaxed);
    const auto look_at = [&](std::int32_t pid) { return look_at_relative(me, pid, fd, *descriptor, family); };
    const bool supervised = process.spool.header().supervisor.load(std::memory_order_relaxed) != 0;
    constexpr int kMostAncestors = 12;
    const int patience = supervised ? 2 : kMostAncestors;  // a supervisor finds whoever is left out here
    const std::int32_t first = first_sharer();
    auto pid = static_cast<std::int32_t>(wire::raw_syscall(SYS_getppid));
    for (int level = 0, misses = 0; pid >= first && level < kMostAncestors && misses < patience;
         ++level, pid = read_stat(pid).parent) {
        misses = look_at(pid) ? 0 : misses + 1;
    }
    for_each_descendant(look_at);
}

namespace {

// A program that opens and closes much shall not ask again and again about a descriptor that it keeps.
bool was_compared(int fd) noexcept {
    return static_cast<unsigned>(fd) < static_cast<unsigned>(kNumbered) &&
           compared_after[fd].load(std::memory_order_relaxed) == table.latest_news() + 1;
}

void note_compared(int fd, std::uint32_t news) noexcept {
    if (compared_as_of.load(std::memory_order_acquire) != news) {
        compared.store(0, std::memory_order_relaxed);
        compared_high.store(false, std::memory_order_relaxed);
        compared_as_of.store(news, std::memory_order_release);
    }
    compared.fetch_or(noted_bit(fd), std::memory_order_relaxed);
    if (static_cast<unsigned>(fd) < static_cast<unsigned>(kNumbered)) {
        compared_after[fd].store(news + 1, std::memory_order_relaxed);
    }
}

bool all_compared() noexcept {
    return compared_as_of.load(std::memory_order_acquire) == table.latest_news() &&
           compared_high.load(std::memory_order_relaxed) &&
           (noted_open.load(std::memory_order_relaxed) & ~compared.load(std::memory_order_relaxed)) == 0;
}

void note_all_compared(std::uint32_t news) noexcept {
    if (compared_as_of.load(std::memory_order_acquire) != news) note_compared(-1, news);
    compared.fetch_or(noted_open.load(std::memory_order_relaxed), std::memory_order_relaxed);
    compared_high.store(true, std::memory_order_relaxed);
}

}  // namespace

bool adopt(int fd) noexcept {
    if (find_descriptor(fd) != nullptr) return true;
    struct stat status {};
    if (!perhaps_shared(fd) || !open_table(false) || was_compared(fd)) return false;
    if (wire::raw_syscall(SYS_fstat, fd, &status) != 0) return false;
    const wire::ShareKey key = key_of(own_pid(), fd, status.st_dev, status.st_ino);
    const std::uint32_t news = table.latest_news();
    const wire::Share *row = find_row(key);
    note_compared(fd, news);
    if (row == nullptr) return false;
    const Identity identity{row->file, row->description.load(std::memory_order_acquire)};
    Thread &me = thread;
    if (identity.description == 0 || !enter(me)) return false;
    track(fd, identity, status.st_dev, status.st_ino, Descriptor::inherited);
    share_copy(fd);
    write_note(me, {.kind = wire::RecordKind::duplicate,
                    .fd = fd,
                    .file = identity.file,
                    .description = identity.description,
                    .a = static_cast<std::uint64_t>(fd)});
    track_copies(me, fd);
    // Whoever took the lock has looked among its own children, not among those of this process: it may be about to
    // close the descriptor, and a background job goes on.
    const Descriptor *descriptor = find_descriptor(fd);
    if (descriptor != nullptr && process.forks.load(std::memory_order_relaxed) != 0 && !in_vfork_child(me)) {
        for_each_descendant([&](std::int32_t pid) { look_at_relative(me, pid, fd, *descriptor, wire::Family::flock); });
    }
    return true;
}

bool adopt_all() noexcept {
    if (shared_about() && open_table(false) && !all_compared()) {
        const std::uint32_t news = table.latest_news();
        for_each_open_descriptor([](int fd) {
            if (perhaps_shared(fd)) adopt(fd);
        });
        note_all_compared(news);
    }
    return tracked_mask.load(std::memory_order_relaxed) != 0;
}

void open_share_table() noexcept {
    open_table(true);
}

void publish(int fd) noexcept {
    Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr || descriptor->provenance.load(std::memory_order_relaxed) >= Descriptor::named) return;
    if (!open_table(true)) {
        process.spool.count_drop(wire::Drop::untold_share);
        return;
    }
    const wire::ShareTable::Turn turn(table);
    if (put_row(key_of(fd, *descriptor), identity_of(*descriptor), true))
        descriptor->provenance.store(Descriptor::inherited, std::memory_order_relaxed);
}

void publish_all() noexcept {
    for_each_tracked([](int fd, const Descriptor &) { publish(fd); });
}

void share_with_child(std::int32_t child) noexcept {
    if (!shared_about() || !open_table(false)) return;
    const wire::ShareTable::Turn turn(table);
    for_each_tracked([&](int fd, const Descriptor &descriptor) {
        if (descriptor.provenance.load(std::memory_order_relaxed) < Descriptor::named) return;
        put_row(key_of(child, fd, descriptor.device, descriptor.inode), identity_of(descriptor), false);
    });
}

void share_copy(int fd) noexcept {
    const Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr || !shared_about() || !open_table(false)) return;
    const wire::ShareTable::Turn turn(table);
    put_row(key_of(fd, *descriptor), identity_of(*descriptor), false);
}

void unshare(int fd, const Descriptor &descriptor) noexcept {
    if (descriptor.provenance.load(std::memory_order_relaxed) < Descriptor::named || !open_table(false)) return;
    table.release(key_of(fd, descriptor));
}

}  // namespace planloop::shim
