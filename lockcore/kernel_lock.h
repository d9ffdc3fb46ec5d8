// boost::interprocess::file_lock as FileLock needs it: on a descriptor of ours, with errors as numbers, and with waits
// that end. It is the kernel's lock of the whole process (fcntl(2) F_SETLK) and knows nothing of threads.
//
// A wait with a deadline: F_SETLKW knows none. A signal that interrupts it needs a handler and a signal number, which
// belong to the program; so does SIGALRM; polling burns time and comes late. So when the lock is not free, a thread of
// our own asks for it, with every signal blocked, and the caller waits for its answer; when time is up that thread is
// cancelled (pthread_cancel(3)), which glibc does with a signal of its own that programs cannot see. A last try then
// tells whether the lock came in that instant. It costs some 50 us, once, and only where there is somebody to wait for.
//
// Errors: 0 or an errno; ETIMEDOUT: time is up; EAGAIN or EACCES: somebody has it; EDEADLK: the kernel found a ring;
// ENOMEM: no thread could be started to wait in. EINTR is taken up again. Threads: one call at a time, which is what
// ProcessGate sees to. Cancellation: lock() is a cancellation point and leaves without the lock, also when the kernel
// granted it in that instant. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_KERNEL_LOCK_H
#define PLANLOOP_LOCKCORE_KERNEL_LOCK_H

#include <boost/interprocess/sync/file_lock.hpp>
#include <cerrno>

#include "lockcore/deadline.h"
#include "lockcore/recorder.h"
#include "lockcore/wire/record.h"

namespace planloop {

class KernelLock {
  public:
    using Boost = boost::interprocess::file_lock;

    explicit KernelLock(int fd) noexcept;  // closes it in the end
    KernelLock(const KernelLock &) = delete;
    KernelLock &operator=(const KernelLock &) = delete;
    ~KernelLock() = default;

    int lock(wire::Mode mode, SteadyClock::time_point deadline);
    int try_lock(wire::Mode mode);
    void unlock();

  private:
    // A thread that is cancelled while it asks may have got the lock in that instant.
    class WithoutIfCancelled {
      public:
        explicit WithoutIfCancelled(KernelLock &lock) : lock_(lock) {}
        ~WithoutIfCancelled() {
            if (__builtin_expect(!came_back_, 0)) lock_.unlock_slowly();
        }
        WithoutIfCancelled(const WithoutIfCancelled &) = delete;
        WithoutIfCancelled &operator=(const WithoutIfCancelled &) = delete;
        int came_back(int error) {
            came_back_ = true;
            return error;
        }

      private:
        KernelLock &lock_;
        bool came_back_ = false;
    };

    int lock_until(wire::Mode mode, SteadyClock::time_point deadline);
    void unlock_slowly();

    Boost lock_;
};

namespace kernel_lock_detail {

// 0 or errno. Boost tells an interrupted wait as an error; a lock call takes it up again.
template <class Attempt>
[[gnu::always_inline]] inline int errno_of(Attempt attempt) {
    for (;;) {
        try {
            return attempt() ? 0 : EAGAIN;
        } catch (const boost::interprocess::interprocess_exception &error) {
            const int number = error.get_native_error();
            if (number != EINTR) return number != 0 ? number : EIO;
        }
    }
}

}  // namespace kernel_lock_detail

// In line all three: a return that was not called for since the system call costs 10 ns behind it, for the kernel
// leaves the processor's predictor of returns filled with its own.

[[gnu::always_inline]] inline int KernelLock::lock(wire::Mode mode, SteadyClock::time_point deadline) {
    if (deadline != kNoDeadline) return lock_until(mode, deadline);
    const recording::Unhooked unhooked;
    WithoutIfCancelled asked(*this);
    return asked.came_back(kernel_lock_detail::errno_of(
        [&] { return mode == wire::Mode::shared ? lock_.lock_sharable() : lock_.lock(), true; }));
}

[[gnu::always_inline]] inline int KernelLock::try_lock(wire::Mode mode) {
    const recording::Unhooked unhooked;
    return kernel_lock_detail::errno_of(
        [&] { return mode == wire::Mode::shared ? lock_.try_lock_sharable() : lock_.try_lock(); });
}

[[gnu::always_inline]] inline void KernelLock::unlock() {
    const recording::Unhooked unhooked;
    kernel_lock_detail::errno_of([&] { return lock_.unlock(), true; });
}

}  // namespace planloop

#endif
