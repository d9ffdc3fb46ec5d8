// syscall(2): perl, node and others make lock calls and close descriptors through it.
#include <linux/close_range.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "interpose/descriptor_calls.h"
#include "interpose/exec_environment.h"
#include "interpose/lock_calls.h"
#include "interpose/process_calls.h"
#include "interpose/real.h"
#include "interpose/sandbox.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

template <class Real>
long record_lock(LockCall call, bool unlock, Real real_call) {
    call.flags = static_cast<std::uint8_t>(call.flags | wire::kSyscall);
    return unlock ? record_release(call, real_call) : record_acquire(call, real_call);
}

template <class Real>
long hook_fcntl(int fd, int command, const void *argument, void *caller, Real real_call) {
    if (is_lock_command(command) && may_record()) {
        LockCall call;
        const bool unlock = describe_fcntl(fd, command, static_cast<const struct flock *>(argument), caller, call);
        return record_lock(call, unlock, real_call);
    }
    const long result = real_call();
    if ((command == F_DUPFD || command == F_DUPFD_CLOEXEC) && result >= 0) note_duplicate(fd, static_cast<int>(result));
    return result;
}

// Whether clone(2) makes a child with memory of its own on the stack of its caller, as fork does: then this frame is
// copied too. Other children run on a stack of their own.
bool makes_copy(long number, long first, long second) noexcept {
    struct CloneArguments {  // clone3(2), as far as it matters here
        std::uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack;
    };
    auto flags = static_cast<std::uint64_t>(first);
    bool same_stack = second == 0;
    if (number == SYS_clone3) {
        const auto *arguments = reinterpret_cast<const CloneArguments *>(first);
        if (static_cast<std::size_t>(second) < sizeof(CloneArguments) ||
            !wire::readable(arguments, sizeof(CloneArguments))) {
            return false;
        }
        flags = arguments->flags;
        same_stack = arguments->stack == 0;
    }
    return (flags & CLONE_VM) == 0 && same_stack;
}

// The modes of seccomp(2), which prctl(2) can set as well; both take the filter as their third word.
bool is_strict(long number, long a, long b) noexcept {
    return number == SYS_seccomp ? a == SECCOMP_SET_MODE_STRICT : a == PR_SET_SECCOMP && b == SECCOMP_MODE_STRICT;
}
bool is_filter(long number, long a, long b) noexcept {
    return number == SYS_seccomp ? a == SECCOMP_SET_MODE_FILTER : a == PR_SET_SECCOMP && b == SECCOMP_MODE_FILTER;
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" long planloop_syscall(long number, ...) PLANLOOP_EXPORT(syscall);
long planloop_syscall(long number, ...) {
    // libc's own takes six words whatever the call needs.
    va_list list;
    va_start(list, number);
    const long a = va_arg(list, long);
    const long b = va_arg(list, long);
    const long c = va_arg(list, long);
    const long d = va_arg(list, long);
    const long e = va_arg(list, long);
    const long f = va_arg(list, long);
    va_end(list);
    const auto real_call = [=] { return real<Symbol::syscall>()(number, a, b, c, d, e, f); };
    const int fd = static_cast<int>(a);
    void *caller = __builtin_return_address(0);
    switch (number) {
        case SYS_flock: {
            LockCall call;
            const bool unlock = describe_flock(fd, static_cast<int>(b), caller, call);
            return record_lock(call, unlock, real_call);
        }
        case SYS_fcntl:
            return hook_fcntl(fd, static_cast<int>(b), reinterpret_cast<const void *>(c), caller, real_call);
        case SYS_close:
            if (may_concern_locks(fd)) let_go(fd, wire::CloseCause::close);
            return real_call();
        case SYS_close_range:
            if ((c & ~static_cast<long>(CLOSE_RANGE_UNSHARE)) == 0) {
                let_go_range(static_cast<unsigned>(a), static_cast<unsigned>(b), wire::CloseCause::close_range);
            }
            return real_call();
        case SYS_dup: {
            const long copy = real_call();
            if (copy >= 0) note_duplicate(fd, static_cast<int>(copy));
            return copy;
        }
#if defined(SYS_dup2)
        case SYS_dup2:
            return record_replace(fd, static_cast<int>(b), real_call);
#endif
        case SYS_dup3:
            return record_replace(fd, static_cast<int>(b), real_call);
        case SYS_exit_group:
            note_exit(wire::ExitCause::immediate, static_cast<int>(a));
            return real_call();
        case SYS_execve:
            return record_exec(reinterpret_cast<char *const *>(c), [=](char *const *environment) {
                return real<Symbol::syscall>()(number, a, b, reinterpret_cast<long>(environment), d, e, f);
            });
        case SYS_execveat:
            return record_exec(reinterpret_cast<char *const *>(d), [=](char *const *environment) {
                return real<Symbol::syscall>()(number, a, b, c, reinterpret_cast<long>(environment), e, f);
            });
#if defined(SYS_fork)
        case SYS_fork:
            return record_fork(real_call);
#endif
        case SYS_clone:
        case SYS_clone3:
            return makes_copy(number, a, b) ? record_fork(real_call) : real_call();
        case SYS_seccomp:
        case SYS_prctl: {
            Sandboxing sandboxing;
            if (is_strict(number, a, b)) sandboxing.begin(nullptr);
            if (is_filter(number, a, b)) sandboxing.begin(reinterpret_cast<const void *>(c));
            const long result = real_call();
            sandboxing.finish(result >= 0);
            return result;
        }
        default:
            return real_call();
    }
}
