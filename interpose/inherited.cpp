#include "interpose/inherited.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <cstring>

#include "interpose/descriptors.h"
#include "interpose/settings.h"
#include "interpose/shares.h"
#include "lockcore/wire/share_table.h"

namespace planloop::shim {

namespace {

using wire::SameDescription;

// Among initialised data, which every process has in memory already.
__attribute__((section(".data"))) InheritedImage image_before{};

std::int32_t own_pid() noexcept {
    return static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
}

// One descriptor of the list.
struct Entry {
    int fd = -1;  // there
    Identity identity;
    bool unnamed = false;  // others may share it of whom the session does not know yet
    bool posix = false;
    std::uint64_t device = 0;  // these two by spawn only
    std::uint64_t inode = 0;
};

std::uint64_t take_field(const char *&text) noexcept {
    if (*text == '.') ++text;
    return take_number(text);
}

Entry take_entry(const char *&text) noexcept {
    Entry entry;
    entry.fd = static_cast<int>(take_number(text));
    entry.identity.description = static_cast<std::uint32_t>(take_field(text));
    entry.identity.file = static_cast<std::uint32_t>(take_field(text));
    if (*text == '.') {
        entry.device = take_field(text);
        entry.inode = take_field(text);
    }
    entry.unnamed = *text == 'n';
    if (entry.unnamed) ++text;
    entry.posix = *text == 'p';
    if (entry.posix) ++text;
    return entry;
}

// `fd`, open on this file, is what the entry told of.
void take_over(const Entry &entry, int fd, const struct stat &status, bool another_process) noexcept {
    track(fd, entry.identity, status.st_dev, status.st_ino,
          entry.unnamed ? Descriptor::found_open : Descriptor::inherited);
    if (entry.posix && !another_process) note_posix_lock(fd, entry.identity.file);
    if (!entry.unnamed) share_copy(fd);
    // An exec'd image is found again by its pid; a spawned one has to say that it shares.
    Thread &me = thread;
    if (!another_process || !enter(me)) return;
    write_note(me, {.kind = wire::RecordKind::duplicate,
                    .fd = fd,
                    .file = entry.identity.file,
                    .description = entry.identity.description,
                    .a = static_cast<std::uint64_t>(fd)});
}

// Finds the parent's descriptor among those of this process, whatever the file actions did to its number. A parent that
// is gone by now, or may not be asked, leaves only the number and the file to go by.
void take_over_by_comparing(const Entry &entry) noexcept {
    for_each_open_descriptor([&](int fd) {
        struct stat status {};
        if (find_descriptor(fd) != nullptr || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return;
        if (status.st_dev != entry.device || status.st_ino != entry.inode) return;
        const SameDescription same = wire::compare_descriptors(own_pid(), fd, image_before.pid, entry.fd);
        const bool unanswered = same == SameDescription::unknown || same == SameDescription::gone;
        if (same == SameDescription::yes || (unanswered && fd == entry.fd)) take_over(entry, fd, status, true);
    });
}

}  // namespace

InheritedImage inherited_image() noexcept {
    return image_before;
}

void adopt_from_environment() noexcept {
    if (!settings.inherits || !open_spool()) return;
    const char *text = settings.inherited;
    image_before.pid = static_cast<std::int32_t>(take_number(text));
    image_before.image = static_cast<std::uint32_t>(take_field(text));
    const bool by_actions = *text == 's';
    if (by_actions) ++text;
    const bool another_process = image_before.pid != own_pid();
    while (*text == ';') {
        const Entry entry = take_entry(++text);
        struct stat status {};
        if (entry.identity.packed() == 0) continue;
        if (by_actions) {
            take_over_by_comparing(entry);
        } else if (wire::raw_syscall(SYS_fstat, entry.fd, &status) == 0) {
            take_over(entry, entry.fd, status, another_process);
        }
    }
}

namespace {

// Writes entries until the room is used up.
class List {
  public:
    List(char *room, std::size_t bytes) noexcept : text_(room, bytes) {}

    void begin(std::int32_t pid, std::uint32_t image, Handover handover) noexcept {
        text_ << static_cast<std::uint64_t>(pid) << "." << image;
        if (handover == Handover::by_actions) text_ << "s";
    }
    void add(int fd, const Descriptor &descriptor, Handover handover) noexcept {
        const Identity identity = Identity::unpack(descriptor.ids.load(std::memory_order_acquire));
        const std::size_t before = text_.length();
        if (!full_) {
            text_ << ";" << static_cast<std::uint64_t>(fd) << "." << identity.description << "." << identity.file;
            if (handover == Handover::by_actions) text_ << "." << descriptor.device << "." << descriptor.inode;
            const std::uint32_t provenance = descriptor.provenance.load(std::memory_order_relaxed);
            if (provenance == Descriptor::found_open || provenance == Descriptor::named) text_ << "n";
            if (descriptor.posix_noted.load(std::memory_order_relaxed) != 0) text_ << "p";
            full_ = !text_.whole();
        }
        any_ = any_ || !full_;
        if (full_) text_.cut_back(before);
    }
    bool any() const noexcept { return any_; }
    bool full() const noexcept { return full_; }

  private:
    Text text_;
    bool any_ = false;
    bool full_ = false;
};

bool closes_on_exec(int fd) noexcept {
    const long flags = wire::raw_syscall(SYS_fcntl, fd, F_GETFD);
    return flags < 0 || (flags & FD_CLOEXEC) != 0;
}

bool is_still(int fd, const Descriptor &descriptor) noexcept {
    struct stat status {};
    return wire::raw_syscall(SYS_fstat, fd, &status) == 0 && status.st_dev == descriptor.device &&
           status.st_ino == descriptor.inode;
}

// A vfork child's descriptors against the table of its parent, which stands still meanwhile.
void list_as_vforked(Thread &me, List &list) noexcept {
    const std::int32_t self = own_pid();
    for_each_tracked([&](int tracked, const Descriptor &descriptor) {
        const auto consider = [&](int fd) {
            if (closes_on_exec(fd)) return;
            const SameDescription same = wire::compare_descriptors(self, fd, me.vfork_parent, tracked);
            const bool trusted = same == SameDescription::unknown && fd == tracked && is_still(fd, descriptor);
            if (same == SameDescription::yes || trusted) list.add(fd, descriptor, Handover::as_they_are);
        };
        if (!me.vfork_copied) return consider(tracked);
        for_each_open_descriptor(consider);
    });
}

}  // namespace

bool append_inherited(Thread &me, Text &text, Handover handover) noexcept {
    if (tracked_mask.load(std::memory_order_relaxed) == 0) return false;
    // A vfork child speaks for its parent, whose table this is: the new image then says that it is another process.
    const bool vforked = in_vfork_child(me);
    char room[sizeof(Settings::inherited)];
    List list(room, sizeof(room));
    list.begin(vforked ? me.vfork_parent : own_pid(), vforked || attached(me) ? process.identity.process : 0, handover);
    if (vforked) {
        list_as_vforked(me, list);
        if (list.any()) me.vfork_child = own_pid();
    } else {
        for_each_tracked([&](int fd, const Descriptor &descriptor) {
            if (handover == Handover::as_they_are && closes_on_exec(fd)) return;
            if (is_still(fd, descriptor)) list.add(fd, descriptor, handover);
        });
    }
    if (list.full() && !vforked) publish_all();
    if (list.any()) text << room;
    return list.any();
}

void note_spawned(Thread &me, std::int32_t child) noexcept {
    if (child <= 0 || tracked_mask.load(std::memory_order_relaxed) == 0 || !enter(me)) return;
    bool any = false;
    for_each_tracked([&](int fd, const Descriptor &descriptor) {
        const std::uint64_t now = process.spool.ticks();
        const auto note = [&](int there) {
            if (wire::compare_descriptors(process.identity.pid, fd, child, there) != SameDescription::yes) return false;
            const Identity identity = Identity::unpack(descriptor.ids.load(std::memory_order_relaxed));
            if (wire::Record *record = me.stream.claim(process.spool, me.who(process))) {
                record->kind = wire::RecordKind::sharer;
                record->fd = fd;
                record->file = identity.file;
                record->description = identity.description;
                record->a = static_cast<std::uint64_t>(child);
                record->b = static_cast<std::uint64_t>(there);
                record->begin = now;
                me.stream.publish(record, wire::State::complete);
            }
            return any = true;
        };
        if (note(fd)) return;
        bool found = false;
        for_each_open_descriptor(child, [&](int there) { found = found || (there != fd && note(there)); });
    });
    if (any) announce_sharing(child);
}

}  // namespace planloop::shim
