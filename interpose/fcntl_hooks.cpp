// fcntl(2): POSIX record locks, which belong to the process, and open-file-description (OFD) locks. Also F_DUPFD.
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "interpose/descriptor_calls.h"
#include "interpose/lock_calls.h"
#include "interpose/real.h"
#include "interpose/settings.h"

namespace planloop::shim {

static_assert(sizeof(struct flock) == sizeof(struct flock64), "fcntl and fcntl64 are told alike");

namespace {

// Copies the program's struct flock. A bad pointer is the kernel's to refuse, so it must not be followed here: one that
// lies among our callers' frames is good, any other is read through the kernel, which says EFAULT.
bool read_lock(const struct flock *from, struct flock &lock) noexcept {
    constexpr std::uintptr_t kNearFrames = 64 * 1024;
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const auto address = reinterpret_cast<std::uintptr_t>(from);
    if (address >= frame && address - frame < kNearFrames) {
        lock = *from;
        return true;
    }
    const iovec local{&lock, sizeof(lock)};
    const iovec remote{const_cast<struct flock *>(from), sizeof(lock)};
    const long pid = wire::raw_syscall(SYS_getpid);
    const long got = wire::raw_syscall(SYS_process_vm_readv, pid, &local, 1, &remote, 1, 0);
    if (got == static_cast<long>(sizeof(lock))) return true;
    if (got >= 0 || got == -EFAULT || !wire::readable(from, sizeof(lock))) return false;
    lock = *from;  // a sandbox forbids the call
    return true;
}

// fs/locks.c flock64_to_posix_lock(): a negative length lies before the start, length 0 reaches to the end of the file.
bool make_absolute(int fd, const struct flock &lock, LockCall &call) noexcept {
    off_t start = 0;
    if (lock.l_whence == SEEK_CUR) {
        start = wire::raw_syscall(SYS_lseek, fd, 0, SEEK_CUR);
    } else if (lock.l_whence == SEEK_END) {
        struct stat status {};
        start = wire::raw_syscall(SYS_fstat, fd, &status) == 0 ? status.st_size : -1;
    } else if (lock.l_whence != SEEK_SET) {
        return false;
    }
    if (start < 0 || __builtin_add_overflow(start, lock.l_start, &start)) return false;
    off_t length = lock.l_len;
    off_t end = 0;
    if (length < 0) {
        if (__builtin_add_overflow(start, length, &start) || start < 0) return false;
        length = -length;
    }
    if (start < 0) return false;
    if (length > 0 && __builtin_add_overflow(start, length - 1, &end)) return false;
    constexpr off_t kOffsetMax = 0x7fffffffffffffff;
    call.start = static_cast<std::uint64_t>(start);
    call.length = end == kOffsetMax ? 0 : static_cast<std::uint64_t>(length);
    return true;
}

}  // namespace

bool describe_fcntl(int fd, int command, const struct flock *from, void *caller, LockCall &call) noexcept {
    const bool ofd = command == F_OFD_SETLK || command == F_OFD_SETLKW;
    call = {ofd ? wire::Family::ofd : wire::Family::posix,
            wire::Mode::none,
            static_cast<std::uint8_t>(waits(command) ? wire::kBlocking : 0),
            fd,
            0,
            0,
            caller};
    struct flock lock {};
    const bool readable = read_lock(from, lock);
    if (!readable || !make_absolute(fd, lock, call) || (ofd && lock.l_pid != 0))
        call.flags = static_cast<std::uint8_t>(call.flags | wire::kBadArguments);
    if (!readable) return false;
    switch (lock.l_type) {
        case F_RDLCK:
            call.mode = wire::Mode::shared;
            break;
        case F_WRLCK:
            call.mode = wire::Mode::exclusive;
            break;
        case F_UNLCK:
            return true;
        default:
            call.flags = static_cast<std::uint8_t>(call.flags | wire::kBadArguments);
    }
    return false;
}

void take_back_release(void * /*unused*/) noexcept {
    Thread &me = thread;
    if (me.releasing == nullptr) return;
    wire::StreamWriter::conclude(me.releasing, wire::State::annulled);
    me.releasing = nullptr;
}

void abandon_pending(void *) noexcept {
    Thread &me = thread;
    if (me.depth == 0) return;
    if (--me.depth >= kNestedCalls) return;
    wire::Record *record = me.calls[me.depth].record;
    me.calls[me.depth].record = nullptr;
    if (record == nullptr) return;
    record->end = process.spool.ticks();
    wire::StreamWriter::conclude(record, wire::State::abandoned);
}

namespace {

using Fcntl = SymbolType<Symbol::fcntl>::Function;

// Of all three names, which end in a jump to here. What does not wait is no cancellation point.
__attribute__((noinline)) int lock_by_fcntl(int fd, int command, void *argument, void *caller, Fcntl *real_function,
                                            bool stand_in) {
    LockCall call;
    const bool unlock = describe_fcntl(fd, command, static_cast<const struct flock *>(argument), caller, call);
    const auto real_call = [=] {
        if (stand_in && !waits(command)) return libcs_result(wire::raw_syscall(SYS_fcntl, fd, command, argument));
        return real_function(fd, command, argument);
    };
    return record_cancellable(call, unlock, real_call);
}

template <Symbol symbol>
__attribute__((always_inline)) inline int hook_fcntl(int fd, int command, void *argument, void *caller) {
    Fcntl *const real_function = real<symbol>();
    if (is_lock_command(command) && may_record()) {
        return lock_by_fcntl(fd, command, argument, caller, real_function, may_stand_in<symbol>());
    }
    if (command != F_DUPFD && command != F_DUPFD_CLOEXEC) return real_function(fd, command, argument);
    const int copy = real_function(fd, command, argument);
    if (copy >= 0) note_duplicate(fd, copy);
    return copy;
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;

// The third argument is a pointer, an int or missing; libc reads it as a pointer too. It comes in the register in which
// it would come were fcntl not variadic (psABI of x86-64, of AArch64).
#define PLANLOOP_FCNTL(symbol)                                                                     \
    extern "C" int planloop_##symbol(int fd, int command, void *argument) PLANLOOP_EXPORT(symbol); \
    int planloop_##symbol(int fd, int command, void *argument) {                                   \
        return hook_fcntl<Symbol::symbol>(fd, command, argument, __builtin_return_address(0));     \
    }
PLANLOOP_FCNTL(fcntl)
PLANLOOP_FCNTL(fcntl64)
PLANLOOP_FCNTL(__fcntl)
