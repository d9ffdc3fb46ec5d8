// From the arguments of a lock call to a LockCall: one function for each way of asking, so that flock(), fcntl(),
// lockf() and the same calls through syscall() are described alike. Each returns true for an unlock.
//
// Ranges are made absolute when the call is made: SEEK_CUR and SEEK_END mean what they meant then. A range, command or
// pointer that the kernel will refuse is flagged kBadArguments and recorded all the same; no pointer of the program is
// followed before it is known to be readable.
#ifndef PLANLOOP_INTERPOSE_LOCK_CALLS_H
#define PLANLOOP_INTERPOSE_LOCK_CALLS_H

#include <fcntl.h>
#include <pthread.h>

#include "interpose/recording.h"

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
#include <sys/single_threaded.h>
#pragma weak __libc_single_threaded  // so that the program starts where it is missing
#endif

namespace planloop::shim {

bool describe_flock(int fd, int operation, void *caller, LockCall &call) noexcept;

// Whether `command` of fcntl takes or releases a lock; F_GETLK and its kin only ask.
constexpr bool is_lock_command(int command) noexcept {
    return command == F_SETLK || command == F_SETLKW || command == F_OFD_SETLK || command == F_OFD_SETLKW;
}
constexpr bool waits(int command) noexcept {
    return command == F_SETLKW || command == F_OFD_SETLKW;
}
bool describe_fcntl(int fd, int command, const struct flock *lock, void *caller, LockCall &call) noexcept;

// Handlers for a thread that is cancelled inside a call: of one that waits, and of an unlock that then released
// nothing.
void abandon_pending(void *) noexcept;
void take_back_release(void *) noexcept;

// With what is to be done should the thread be cancelled in the call.
template <class Real>
__attribute__((noinline)) auto record_guarded(const LockCall &call, bool unlock, Real real_call) {
    const auto guarded = [&](void (*on_cancel)(void *)) {
        decltype(real_call()) result;
        pthread_cleanup_push(on_cancel, nullptr);
        result = real_call();
        pthread_cleanup_pop(0);
        return result;
    };
    if (unlock) return record_release(call, [&] { return guarded(take_back_release); });
    return record_acquire(call, [&] { return guarded(abandon_pending); });
}

// Whether this process has one thread, and so nobody who might cancel it.
inline bool is_lone_thread() noexcept {
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 32)
    return &__libc_single_threaded != nullptr && __libc_single_threaded != 0;
#else
    return false;
#endif
}

// The same for a call that is a cancellation point while it waits: fcntl's lock commands and lockf. Being ready for
// that (a setjmp) costs 30 ns, so a lone thread is not: had it cancelled itself, its process would end with it.
template <class Real>
__attribute__((always_inline)) inline auto record_cancellable(const LockCall &call, bool unlock, Real real_call) {
    if (is_lone_thread()) return unlock ? record_release(call, real_call) : record_acquire(call, real_call);
    return record_guarded(call, unlock, real_call);
}

}  // namespace planloop::shim

#endif
