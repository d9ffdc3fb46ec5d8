// Who of a process's threads may use a lock that the kernel gives to the whole process (FileLock's): one alone, or
// several that share. The first that comes has to ask the kernel, the last that goes has to give its lock back; while
// they do, the others wait.
//
// Uncontended, entering and leaving are one atomic operation each. A thread that asks for what it has alone gets
// EDEADLK. Sharers may come while somebody waits to be alone, as with the kernel's own locks.
//
// Errors: 0 or an errno. Threads: safe. Signals: not async-signal-safe. Cancellation: waiting is a cancellation point.
#ifndef PLANLOOP_LOCKCORE_PROCESS_GATE_H
#define PLANLOOP_LOCKCORE_PROCESS_GATE_H

#include <pthread.h>

#include <atomic>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>

#include "lockcore/deadline.h"

namespace planloop {

class ProcessGate {
  public:
    // `first`: the kernel has to be asked, and settle() told what it said. kNoDeadline: for ever.
    int enter_alone(SteadyClock::time_point deadline) {
        int free = kFree;
        if (!state_.compare_exchange_strong(free, kAlone)) {
            const int error = wait(deadline, [this] {
                int still_free = kFree;
                return state_.compare_exchange_strong(still_free, kAlone);
            });
            if (error != 0) return error;
        }
        owner_.store(pthread_self(), std::memory_order_relaxed);
        return 0;
    }
    bool try_enter_alone() {
        int free = kFree;
        if (!state_.compare_exchange_strong(free, kAlone)) return false;
        owner_.store(pthread_self(), std::memory_order_relaxed);
        return true;
    }
    void leave_alone() {
        owner_.store(pthread_t{}, std::memory_order_relaxed);
        become(kFree);
    }

    int enter_shared(SteadyClock::time_point deadline, bool &first) {
        if (try_enter_shared(first)) return 0;
        return wait(deadline, [this, &first] { return try_enter_shared(first); });
    }
    bool try_enter_shared(bool &first) {
        int now = state_.load();
        while (now >= kFree) {
            first = now == kFree;
            if (state_.compare_exchange_weak(now, first ? kChanging : now + 1)) return true;
        }
        return false;
    }
    // The first sharer's answer from the kernel.
    void settle_shared(bool got) { become(got ? 1 : kFree); }
    // True: the last one; it gives the kernel's lock back and calls left_shared().
    bool leave_shared() {
        int now = state_.load();
        while (now > kFree) {
            const bool last = now == 1;
            if (state_.compare_exchange_weak(now, last ? kChanging : now - 1)) return last;
        }
        return false;
    }
    void left_shared() { become(kFree); }

    bool alone() const noexcept { return state_.load(std::memory_order_relaxed) == kAlone; }
    bool shared() const noexcept { return state_.load(std::memory_order_relaxed) > kFree; }

    // A forked child has one thread, and the kernel gave it nothing.
    void reset_in_child() {
        new (&mutex_) std::mutex;
        new (&changed_) std::condition_variable;
        owner_ = pthread_t{};
        waiting_ = 0;
        state_ = kFree;
    }

  private:
    static constexpr int kFree = 0;  // above: so many sharers
    static constexpr int kAlone = -1;
    static constexpr int kChanging = -2;

    // Whoever waits counts itself before it looks; whoever changes the state looks at the count after. So one of them
    // sees the other, both being sequentially consistent.
    void become(int state) {
        state_.store(state);
        if (waiting_.load() == 0) return;
        { const std::lock_guard guard(mutex_); }
        changed_.notify_all();
    }

    template <class Try>
    int wait(SteadyClock::time_point deadline, Try attempt) {
        if (alone() && pthread_equal(owner_.load(std::memory_order_relaxed), pthread_self()) != 0) return EDEADLK;
        struct Count {  // also when the thread is cancelled
            explicit Count(std::atomic<std::uint32_t> &of) : count(of) { ++count; }
            ~Count() { --count; }
            Count(const Count &) = delete;
            Count &operator=(const Count &) = delete;
            std::atomic<std::uint32_t> &count;
        } const counted(waiting_);
        std::unique_lock guard(mutex_);
        while (!attempt()) {
            if (deadline == kNoDeadline) {
                changed_.wait(guard);
            } else if (changed_.wait_until(guard, deadline) == std::cv_status::timeout) {
                return attempt() ? 0 : ETIMEDOUT;
            }
        }
        return 0;
    }

    std::atomic<int> state_ = kFree;
    std::atomic<std::uint32_t> waiting_ = 0;
    std::atomic<pthread_t> owner_ = pthread_t{};
    std::mutex mutex_;
    std::condition_variable changed_;
};

}  // namespace planloop

#endif
