#include "interpose/inherited.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "interpose/introduction.h"
#include "interpose/proc_files.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

InheritedImage image_before;

// One "lock:" line of /proc/PID/fdinfo/FD: "lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF".
struct LockLine {
    wire::Family family;
    std::int32_t taker;  // -1 for OFD locks: they have no process
    std::uint64_t inode;
};

// Calls visit(LockLine) for each lock that hangs on a descriptor of a process, as the kernel tells it.
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

enum class Shared { no, yes, unknown };

// Whether two descriptors of two processes refer to one open file description; kcmp(2). Not always permitted.
Shared compare(std::int32_t pid, int fd, std::int32_t other, int other_fd) noexcept {
    constexpr int kKcmpFile = 0;  // linux/kcmp.h
    const long order = wire::raw_syscall(SYS_kcmp, pid, other, kKcmpFile, fd, other_fd);
    if (order == 0) return Shared::yes;
    return order > 0 || order == -EBADF || order == -ESRCH ? Shared::no : Shared::unknown;
}

std::int32_t own_pid() noexcept {
    return static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
}

// Whether `lock`, published for this file, is the one that hangs on `fd`. A flock's line names its taker; process
// numbers are given out again, hence the file too. An OFD lock's line names nobody.
bool is_published(const wire::InheritedLock &lock, int fd, std::uint64_t device, std::uint64_t inode,
                  const LockLine &line) noexcept {
    if (lock.description.load(std::memory_order_acquire) == 0 || lock.device != device || lock.inode != inode ||
        lock.family != static_cast<std::uint16_t>(line.family)) {
        return false;
    }
    if (line.family == wire::Family::flock) return lock.taker == line.taker;
    const std::int32_t self = own_pid();
    return compare(self, fd, lock.taker, lock.fd) == Shared::yes ||
           (lock.sharer != 0 && compare(self, fd, lock.sharer, lock.fd) == Shared::yes);
}

void publish(int fd, Identity identity, const Descriptor &descriptor, wire::Family family,
             std::int32_t sharer) noexcept {
    wire::SpoolHeader &header = process.spool.header();
    const std::uint32_t number = header.next_inherited.fetch_add(1, std::memory_order_relaxed);
    wire::InheritedLock &lock = header.inherited[number % wire::kInheritedLocks];
    lock.description.store(0, std::memory_order_release);
    lock.file = identity.file;
    lock.device = descriptor.device;
    lock.inode = descriptor.inode;
    lock.taker = process.identity.pid;
    lock.fd = fd;
    lock.sharer = sharer;
    lock.family = static_cast<std::uint16_t>(family);
    lock.by_scan = 0;
    lock.description.store(identity.description, std::memory_order_release);
    if (sharer == 0) return;
    header.inherited_fds.fetch_or(std::uint64_t{1} << (static_cast<unsigned>(fd) % 64), std::memory_order_release);
}

}  // namespace

InheritedImage inherited_image() noexcept {
    return image_before;
}

bool same_description(int fd, int other) noexcept {
    const std::int32_t self = own_pid();
    return compare(self, fd, self, other) == Shared::yes;
}

std::uint32_t description_of_copy(int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    std::uint32_t description = 0;
    for_each_tracked([&](int other, const Descriptor &descriptor) {
        if (description != 0 || other == fd || descriptor.device != device || descriptor.inode != inode) return;
        if (!same_description(fd, other)) return;
        description = Identity::unpack(descriptor.ids.load(std::memory_order_relaxed)).description;
    });
    return description;
}

namespace {

// What the taker of a lock, before it died, found this process to share under this very number.
Identity identity_found_by_taker(int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    const std::int32_t self = own_pid();
    Identity shared;
    for (const wire::InheritedLock &lock : process.spool.header().inherited) {
        const std::uint32_t description = lock.description.load(std::memory_order_acquire);
        if (description == 0 || lock.sharer != self || lock.fd != fd) continue;
        if (lock.device == device && lock.inode == inode) shared = {lock.file, description};
    }
    return shared;
}

}  // namespace

Identity shared_identity(int fd, std::uint64_t device, std::uint64_t inode) noexcept {
    Identity shared;
    for_each_lock_line(own_pid(), fd, [&](const LockLine &line) {
        if (line.inode != inode) return;
        // In a PID namespace of its own, the dead and those outside have no number.
        if (line.family == wire::Family::flock && line.taker == 0) shared = identity_found_by_taker(fd, device, inode);
        for (const wire::InheritedLock &lock : process.spool.header().inherited) {
            if (is_published(lock, fd, device, inode, line)) shared = {lock.file, lock.description.load()};
        }
    });
    return shared;
}

namespace {

// Whether `pid` shares the description of `fd`, on which this process has just taken a lock.
bool has_share(std::int32_t pid, int fd, const Descriptor &descriptor, wire::Family family) noexcept {
    const Shared shared = compare(process.identity.pid, fd, pid, fd);
    if (shared != Shared::unknown) return shared == Shared::yes;
    bool named = false;
    for_each_lock_line(pid, fd, [&](const LockLine &line) {
        named =
            named || (line.family == family && line.inode == descriptor.inode && line.taker == process.identity.pid);
    });
    return named;
}

}  // namespace

void look_for_sharers(Thread &me, int fd, Identity identity, wire::Family family) noexcept {
    Descriptor *descriptor = find_descriptor(fd);
    if (descriptor == nullptr) return;
    std::int32_t sharer = 0;
    const auto look_at = [&](std::int32_t pid) {
        if (pid <= 1 || !has_share(pid, fd, *descriptor, family)) return false;
        sharer = pid;
        announce_sharing(pid);
        introduce_sharer(me, pid, family, fd, identity.file, identity.description);
        return true;
    };
    auto pid = static_cast<std::int32_t>(wire::raw_syscall(SYS_getppid));
    constexpr int kMostAncestors = 12;
    for (int level = 0, misses = 0; pid > 1 && level < kMostAncestors && misses < 2;
         ++level, pid = read_stat(pid).parent) {
        misses = look_at(pid) ? 0 : misses + 1;
    }
    ForkPage *page = process.page.load(std::memory_order_acquire);
    for (std::atomic<std::int32_t> &child : page->children) {
        const std::int32_t child_pid = child.load(std::memory_order_relaxed);
        if (child_pid != 0) look_at(child_pid);
    }
    descriptor->provenance.store(sharer != 0 ? Descriptor::inherited : Descriptor::opened_here,
                                 std::memory_order_relaxed);
    publish(fd, identity, *descriptor, family, sharer);
}

bool adopt(int fd) noexcept {
    if (find_descriptor(fd) != nullptr) return true;
    struct stat status {};
    if (!open_spool() || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return false;
    const Identity identity = shared_identity(fd, status.st_dev, status.st_ino);
    if (identity.packed() == 0) return false;
    track(fd, identity, status.st_dev, status.st_ino, Descriptor::inherited);
    return true;
}

std::uint32_t file_of_published(int fd) noexcept {
    struct stat status {};
    if (!open_spool() || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return 0;
    for (const wire::InheritedLock &lock : process.spool.header().inherited) {
        if (lock.description.load(std::memory_order_acquire) != 0 && lock.fd == fd && lock.device == status.st_dev &&
            lock.inode == status.st_ino) {
            return lock.file;
        }
    }
    return 0;
}

bool adopt_all() noexcept {
    const std::atomic<std::uint64_t> *mask = shared_mask.load(std::memory_order_acquire);
    if (mask->load(std::memory_order_relaxed) != 0) {
        for_each_open_descriptor([](int fd) {
            if (shares_number_with_inherited(fd)) adopt(fd);
        });
    }
    return tracked_mask.load(std::memory_order_relaxed) != 0;
}

void adopt_from_environment() noexcept {
    if (!settings.inherits || !open_spool()) return;
    const char *text = settings.inherited;
    image_before.pid = static_cast<std::int32_t>(take_number(text));
    if (*text == '.') ++text;
    image_before.image = static_cast<std::uint32_t>(take_number(text));
    const bool another_process = image_before.pid != wire::raw_syscall(SYS_getpid);
    Thread &me = thread;
    while (*text == ';') {
        const int fd = static_cast<int>(take_number(++text));
        if (*text == '.') ++text;
        Identity identity;
        identity.description = static_cast<std::uint32_t>(take_number(text));
        if (*text == '.') ++text;
        identity.file = static_cast<std::uint32_t>(take_number(text));
        const bool posix = *text == 'p';
        if (posix) ++text;
        struct stat status {};
        if (identity.packed() == 0 || wire::raw_syscall(SYS_fstat, fd, &status) != 0) continue;
        track(fd, identity, status.st_dev, status.st_ino, Descriptor::inherited);
        if (posix && !another_process) note_posix_lock(fd, identity.file);
        // An exec'd image is found again by its pid; a spawned one has to say that it shares.
        if (!another_process || !enter(me)) continue;
        introduce_sharer(me, process.identity.pid, {}, fd, identity.file, identity.description);
    }
}

bool append_inherited(Thread &me, Text &text) noexcept {
    if (tracked_mask.load(std::memory_order_relaxed) == 0) return false;
    // A vfork child speaks for its parent, whose table this is: the new image then says that it is another process.
    const bool vforked = in_vfork_child(me);
    const auto pid = static_cast<std::uint64_t>(vforked ? me.vfork_parent : own_pid());
    const std::uint32_t image = vforked || attached(me) ? process.identity.process : 0;
    char room[sizeof(Settings::inherited)];
    Text list(room, sizeof(room));
    list << pid << "." << image;
    bool any = false;
    for_each_tracked([&](int fd, const Descriptor &descriptor) {
        const Identity identity = Identity::unpack(descriptor.ids.load(std::memory_order_acquire));
        const long flags = wire::raw_syscall(SYS_fcntl, fd, F_GETFD);
        struct stat status {};
        if (flags < 0 || (flags & FD_CLOEXEC) != 0 || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return;
        if (status.st_dev != descriptor.device || status.st_ino != descriptor.inode || !list.whole()) return;
        const std::size_t before = list.length();
        list << ";" << static_cast<std::uint64_t>(fd) << "." << identity.description << "." << identity.file;
        if (descriptor.posix_noted.load(std::memory_order_relaxed) != 0) list << "p";
        if (list.whole()) {
            any = true;
        } else {
            list.cut_back(before);  // the supervisor finds the rest in /proc
        }
    });
    if (any) text << room;
    return any;
}

}  // namespace planloop::shim
