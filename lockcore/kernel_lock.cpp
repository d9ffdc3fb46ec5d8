#include "lockcore/kernel_lock.h"

#include <pthread.h>
#include <signal.h>

#include <cerrno>
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "lockcore/no_cancellation.h"
#include "lockcore/recorder.h"

namespace planloop {
namespace {

using Boost = KernelLock::Boost;
using kernel_lock_detail::errno_of;
using recording::Unhooked;
using wire::Mode;

// Boost's file_lock opens its file itself, without O_CLOEXEC. It is one descriptor and nothing else, and a pointer to a
// standard-layout object is one to its first member: so it can be given ours, and closes it.
static_assert(std::is_standard_layout_v<Boost> && sizeof(Boost) == sizeof(int));
int &descriptor_in(Boost &lock) noexcept {
    return reinterpret_cast<int &>(lock);
}

int take(Boost &lock, Mode mode) {
    return errno_of([&] { return mode == Mode::shared ? lock.lock_sharable() : lock.lock(), true; });
}
int try_take(Boost &lock, Mode mode) {
    return errno_of([&] { return mode == Mode::shared ? lock.try_lock_sharable() : lock.try_lock(); });
}
bool somebody_has_it(int error) {
    return error == EAGAIN || error == EACCES;
}

// Asks the kernel for a lock in a thread of its own, so that the wait can be given up.
class Asking {
  public:
    Asking(Boost &lock, Mode mode) : lock_(lock), mode_(mode) {}
    Asking(const Asking &) = delete;
    Asking &operator=(const Asking &) = delete;
    ~Asking() { end(); }

    // 0, ETIMEDOUT, or the errno of what failed.
    int wait_until(SteadyClock::time_point deadline) {
        if (start() != 0) return ENOMEM;
        {
            std::unique_lock guard(mutex_);
            answered_.wait_until(guard, deadline, [&] { return answer_.has_value(); });
        }
        end();
        if (answer_) return *answer_;
        const int error = try_take(lock_, mode_);  // cancelled: perhaps just after the kernel granted it
        return somebody_has_it(error) ? ETIMEDOUT : error;
    }

  private:
    int start() {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        constexpr std::size_t kStackBytes = std::size_t{256} << 10;
        pthread_attr_setstacksize(&attributes, kStackBytes);
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's handlers belong on its own threads
        int error = pthread_create(&thread_, &attributes, run, this);
        // The program's thread-local variables come out of the stack, and may be too large for it.
        if (error == EINVAL) error = pthread_create(&thread_, nullptr, run, this);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        pthread_attr_destroy(&attributes);
        runs_ = error == 0;
        return error;
    }

    // Whether it has its answer or not, and also when the caller itself is being cancelled.
    void end() {
        if (!std::exchange(runs_, false)) return;
        const NoCancellation joining;
        pthread_cancel(thread_);
        pthread_join(thread_, nullptr);
    }

    // Not noexcept: cancelling unwinds through here.
    static void *run(void *self) {
        auto &me = *static_cast<Asking *>(self);
        const Unhooked unhooked;
        const int answer = take(me.lock_, me.mode_);
        const NoCancellation answering;
        const std::lock_guard guard(me.mutex_);
        me.answer_ = answer;
        me.answered_.notify_one();
        return nullptr;
    }

    Boost &lock_;
    Mode mode_;
    pthread_t thread_{};
    bool runs_ = false;
    std::mutex mutex_;
    std::condition_variable answered_;
    std::optional<int> answer_;
};

}  // namespace

KernelLock::KernelLock(int fd) noexcept {
    descriptor_in(lock_) = fd;
}

int KernelLock::lock_until(Mode mode, SteadyClock::time_point deadline) {
    const Unhooked unhooked;
    WithoutIfCancelled asked(*this);
    const int error = try_take(lock_, mode);
    if (!somebody_has_it(error)) return asked.came_back(error);
    if (deadline <= SteadyClock::now()) return asked.came_back(ETIMEDOUT);
    return asked.came_back(Asking(lock_, mode).wait_until(deadline));
}

void KernelLock::unlock_slowly() {
    unlock();
}

}  // namespace planloop
