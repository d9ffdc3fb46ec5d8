// lckpwdf(3): libc takes a POSIX lock on all of /etc/.pwd.lock, through calls of its own that reach no other hook, and
// keeps the descriptor to itself. It waits for fifteen seconds at most and then fails with EINTR.
#include <errno.h>
#include <fcntl.h>
#include <shadow.h>
#include <sys/stat.h>

#include "interpose/lock_calls.h"
#include "interpose/real.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

constexpr char kPasswordLock[] = "/etc/.pwd.lock";  // _PATH_PWDLOCK of glibc's lckpwdf.c

// The file's number, as far as there is a file; opening and closing it would drop a lock that this process has on it.
Identity password_lock(Thread &me) noexcept {
    struct stat status {};
    if (wire::raw_syscall(SYS_newfstatat, AT_FDCWD, kPasswordLock, &status, 0) != 0) return {};
    if (const std::uint32_t known = posix_locked_file(status.st_dev, status.st_ino); known != 0) return {known, 0};
    const int fd = wire::raw_open(kPasswordLock, O_RDONLY | O_NOFOLLOW);
    if (fd < 0) return {};
    Identity identity;
    if (wire::raw_syscall(SYS_fstat, fd, &status) == 0) {
        identity.file = file_number(me, fd, status);
    }
    wire::raw_close(fd);
    return identity;
}

// Calls visit(fd, status) for libc's descriptor of the file, which it has just opened: the one of that file that nobody
// knew.
template <class Visit>
void with_libcs_descriptor(Visit visit) noexcept {
    struct stat wanted {};
    if (wire::raw_syscall(SYS_newfstatat, AT_FDCWD, kPasswordLock, &wanted, 0) != 0) return;
    for_each_open_descriptor([&](int fd) {
        struct stat status {};
        if (find_descriptor(fd) != nullptr || wire::raw_syscall(SYS_fstat, fd, &status) != 0) return;
        if (status.st_dev == wanted.st_dev && status.st_ino == wanted.st_ino) visit(fd, status);
    });
}

void track_password_lock(int fd, const struct stat &status, std::uint32_t file) noexcept {
    const std::uint32_t number = process.spool.header().next_description.fetch_add(1, std::memory_order_relaxed);
    track(fd, {file, number}, status.st_dev, status.st_ino, Descriptor::opened_here);
    note_posix_lock(fd, file);
}

LockCall whole_file(wire::Mode mode, void *caller) noexcept {
    const auto flags = static_cast<std::uint8_t>(mode == wire::Mode::none ? 0 : wire::kBlocking);
    return {wire::Family::posix, mode, flags, -1, 0, 0, caller};
}

// The first call of all makes the file, and hardly waits. Before it there is no file that a record could name.
int record_first_lock(Thread &me, void *caller) {
    const std::uint64_t begin = process.spool.ticks();
    const int result = real<Symbol::lckpwdf>()();
    const int saved_errno = errno;
    if (result == 0) {
        with_libcs_descriptor([&](int fd, const struct stat &status) {
            const std::uint32_t file = file_number(me, fd, status);
            wire::Record *record = me.stream.claim(process.spool, me.who(process));
            if (record == nullptr) return;
            fill(*record, wire::RecordKind::acquire, whole_file(wire::Mode::exclusive, caller), {file, 0}, begin);
            record->end = process.spool.ticks();
            me.stream.publish(record, wire::State::complete);
            track_password_lock(fd, status, file);
        });
    }
    errno = saved_errno;
    return result;
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" int planloop_lckpwdf() PLANLOOP_EXPORT(lckpwdf);
int planloop_lckpwdf() {
    Thread &me = thread;
    if (!may_record() || !enter(me)) return real<Symbol::lckpwdf>()();
    const Identity identity = password_lock(me);
    if (identity.file == 0) return record_first_lock(me, __builtin_return_address(0));
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const std::uint64_t now = process.spool.ticks();
    close_abandoned(me, frame, now);
    wire::Record *record = me.stream.claim(process.spool, me.who(process));
    if (record == nullptr) return real<Symbol::lckpwdf>()();
    fill(*record, wire::RecordKind::acquire, whole_file(wire::Mode::exclusive, __builtin_return_address(0)), identity,
         now);
    const int result = run_pending(me, record, frame, [] {
        int locked = -1;
        pthread_cleanup_push(abandon_pending, nullptr);
        locked = real<Symbol::lckpwdf>()();
        pthread_cleanup_pop(0);
        return locked;
    });
    if (result == 0) {
        with_libcs_descriptor(
            [&](int fd, const struct stat &status) { track_password_lock(fd, status, identity.file); });
    }
    return result;
}

extern "C" int planloop_ulckpwdf() PLANLOOP_EXPORT(ulckpwdf);
int planloop_ulckpwdf() {
    Thread &me = thread;
    struct stat status {};
    const bool exists = may_record() && wire::raw_syscall(SYS_newfstatat, AT_FDCWD, kPasswordLock, &status, 0) == 0;
    const std::uint32_t file = exists ? posix_locked_file(status.st_dev, status.st_ino) : 0;
    if (file == 0 || !enter(me)) return real<Symbol::ulckpwdf>()();
    for_each_tracked([&](int fd, const Descriptor &descriptor) {
        if (descriptor.device == status.st_dev && descriptor.inode == status.st_ino) untrack(fd);
    });
    wire::Record *record = me.stream.claim(process.spool, me.who(process));
    if (record == nullptr) return real<Symbol::ulckpwdf>()();
    fill(*record, wire::RecordKind::release, whole_file(wire::Mode::none, __builtin_return_address(0)), {file, 0},
         process.spool.ticks());
    me.stream.publish(record, wire::State::complete);
    const int result = real<Symbol::ulckpwdf>()();
    if (result != 0) wire::StreamWriter::conclude(record, wire::State::annulled);  // it was not locked
    return result;
}
