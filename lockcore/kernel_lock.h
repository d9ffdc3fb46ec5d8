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

#include "lockcore/deadline.h"
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
    Boost lock_;
};

}  // namespace planloop

#endif
