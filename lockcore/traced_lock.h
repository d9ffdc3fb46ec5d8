// traced<L>: any lock, with its requests, acquisitions, failures and releases recorded (recorder.h), to the same report
// as file locks.
//
//   planloop::traced<std::mutex> queue_mutex{"queue"};                     // shown as mutex:<pid>:<address>, "queue"
//   planloop::traced<boost::interprocess::named_mutex> setup{planloop::by_name("tool-setup"), open_or_create,
//   "tool-setup"}; std::lock_guard guard(queue_mutex);
//
// It has exactly the operations that L has, by the standard library's names and by Boost.Interprocess's: exclusive,
// shared (lock_shared, lock_sharable) and upgradable; timed by any argument that L takes. Two families:
//
//   mutex        lives in this process's memory; its id is mutex:<pid>:<address>, its label is for people
//   named_mutex  by_name(): other processes know it by the same name; its id is named_mutex:<name>
//
// An upgradable hold is recorded as shared and its upgrade as a release and an exclusive acquisition: that it excludes
// other upgradable holds, a report does not know.
//
// An interprocess_mutex in shared memory is a named_mutex for our purpose, since each process has it at another
// address.
//
// Threads: as L. A release is recorded for the thread that makes it. Signals: not async-signal-safe. Errors: what L
// throws passes through; the acquisition then counts as failed, with the errno of a std::system_error or
// interprocess_exception, else EIO. Lifetime: L lives inside, so a traced<L> in memory that processes share is not
// possible: give it a reference, traced<L &>.
// Cost: two records and three reads of the counter, some 100 ns for a pair; a load or two when nothing is recorded.
#ifndef PLANLOOP_LOCKCORE_TRACED_LOCK_H
#define PLANLOOP_LOCKCORE_TRACED_LOCK_H

#include <cerrno>
#include <string>
#include <type_traits>
#include <utility>

#include "lockcore/recorder.h"

namespace planloop {

struct LockLabel {
    std::string text;
    bool shared_name = false;
};
// Other processes know the lock by this name.
inline LockLabel by_name(std::string name) {
    return {std::move(name), true};
}

namespace recording {
// The errno in the exception that is being handled; EIO when it has none.
int current_errno() noexcept;
// Where the function that was inlined into its caller will return to.
const void *here() noexcept;
}  // namespace recording

template <class L>
class traced {  // NOLINT(readability-identifier-naming): reads like the lock that it is
  public:
    using Lock = std::remove_reference_t<L>;

    template <class... Arguments>
    explicit traced(LockLabel label, Arguments &&...arguments)
        : lock_(std::forward<Arguments>(arguments)...), name_(name_for(std::move(label), &lock_)) {}
    template <class... Arguments>
    explicit traced(const char *label, Arguments &&...arguments)
        : traced(LockLabel{label, false}, std::forward<Arguments>(arguments)...) {}
    traced() : traced(LockLabel{}) {}
    traced(const traced &) = delete;
    traced &operator=(const traced &) = delete;
    ~traced() = default;

    // The lock inside: what is done to it directly is not recorded.
    Lock &native() noexcept { return lock_; }

    // clang-format off
    void lock() requires requires(Lock &l) { l.lock(); } {
        take(Mode::exclusive, [this] { lock_.lock(); });
    }
    bool try_lock() requires requires(Lock &l) { l.try_lock(); } {
        return attempt(Mode::exclusive, false, [this] { return lock_.try_lock(); });
    }
    template <class Duration> bool try_lock_for(const Duration &wait) requires requires(Lock &l) { l.try_lock_for(wait); } {
        return attempt(Mode::exclusive, true, [&] { return lock_.try_lock_for(wait); });
    }
    template <class Time> bool try_lock_until(const Time &when) requires requires(Lock &l) { l.try_lock_until(when); } {
        return attempt(Mode::exclusive, true, [&] { return lock_.try_lock_until(when); });
    }
    template <class Time> bool timed_lock(const Time &when) requires requires(Lock &l) { l.timed_lock(when); } {
        return attempt(Mode::exclusive, true, [&] { return lock_.timed_lock(when); });
    }
    void unlock() requires requires(Lock &l) { l.unlock(); } {
        give_back(Mode::exclusive, [this] { lock_.unlock(); });
    }

    void lock_shared() requires requires(Lock &l) { l.lock_shared(); } {
        take(Mode::shared, [this] { lock_.lock_shared(); });
    }
    bool try_lock_shared() requires requires(Lock &l) { l.try_lock_shared(); } {
        return attempt(Mode::shared, false, [this] { return lock_.try_lock_shared(); });
    }
    template <class Duration> bool try_lock_shared_for(const Duration &wait) requires requires(Lock &l) { l.try_lock_shared_for(wait); } {
        return attempt(Mode::shared, true, [&] { return lock_.try_lock_shared_for(wait); });
    }
    template <class Time> bool try_lock_shared_until(const Time &when) requires requires(Lock &l) { l.try_lock_shared_until(when); } {
        return attempt(Mode::shared, true, [&] { return lock_.try_lock_shared_until(when); });
    }
    void unlock_shared() requires requires(Lock &l) { l.unlock_shared(); } {
        give_back(Mode::shared, [this] { lock_.unlock_shared(); });
    }

    void lock_sharable() requires requires(Lock &l) { l.lock_sharable(); } {
        take(Mode::shared, [this] { lock_.lock_sharable(); });
    }
    bool try_lock_sharable() requires requires(Lock &l) { l.try_lock_sharable(); } {
        return attempt(Mode::shared, false, [this] { return lock_.try_lock_sharable(); });
    }
    template <class Time> bool timed_lock_sharable(const Time &when) requires requires(Lock &l) { l.timed_lock_sharable(when); } {
        return attempt(Mode::shared, true, [&] { return lock_.timed_lock_sharable(when); });
    }
    void unlock_sharable() requires requires(Lock &l) { l.unlock_sharable(); } {
        give_back(Mode::shared, [this] { lock_.unlock_sharable(); });
    }

    void lock_upgradable() requires requires(Lock &l) { l.lock_upgradable(); } {
        take(Mode::shared, [this] { lock_.lock_upgradable(); });
    }
    bool try_lock_upgradable() requires requires(Lock &l) { l.try_lock_upgradable(); } {
        return attempt(Mode::shared, false, [this] { return lock_.try_lock_upgradable(); });
    }
    template <class Time> bool timed_lock_upgradable(const Time &when) requires requires(Lock &l) { l.timed_lock_upgradable(when); } {
        return attempt(Mode::shared, true, [&] { return lock_.timed_lock_upgradable(when); });
    }
    void unlock_upgradable() requires requires(Lock &l) { l.unlock_upgradable(); } {
        give_back(Mode::shared, [this] { lock_.unlock_upgradable(); });
    }
    // To a stronger hold: waits for the sharers.
    void unlock_upgradable_and_lock() requires requires(Lock &l) { l.unlock_upgradable_and_lock(); } {
        give_back(Mode::shared, [] {});
        take(Mode::exclusive, [this] { lock_.unlock_upgradable_and_lock(); });
    }
    bool try_unlock_upgradable_and_lock() requires requires(Lock &l) { l.try_unlock_upgradable_and_lock(); } {
        return lock_.try_unlock_upgradable_and_lock() && (change(Mode::shared, Mode::exclusive), true);
    }
    // To a weaker one: never waits.
    void unlock_and_lock_upgradable() requires requires(Lock &l) { l.unlock_and_lock_upgradable(); } {
        change(Mode::exclusive, Mode::shared);
        lock_.unlock_and_lock_upgradable();
    }
    void unlock_and_lock_sharable() requires requires(Lock &l) { l.unlock_and_lock_sharable(); } {
        change(Mode::exclusive, Mode::shared);
        lock_.unlock_and_lock_sharable();
    }
    void unlock_upgradable_and_lock_sharable() requires requires(Lock &l) { l.unlock_upgradable_and_lock_sharable(); } {
        lock_.unlock_upgradable_and_lock_sharable();
    }
    // clang-format on

  private:
    using Mode = wire::Mode;
    using Call = recording::Call;

    static recording::LockName name_for(LockLabel label, const void *address) {
        return label.shared_name ? recording::LockName::named(std::move(label.text))
                                 : recording::LockName::mutex(address, std::move(label.text));
    }

    template <class Act>
    void take(Mode mode, Act act) {
        Call call(&name_, mode, true, recording::Clock::memory, recording::here());
        try {
            act();
        } catch (...) {  // a cancelled thread unwinds through here too
            if (const int error = recording::current_errno(); error != 0) call.failed(error);
            throw;
        }
        call.acquired();
    }
    template <class Act>
    bool attempt(Mode mode, bool waits, Act act) {
        bool got = false;
        Call call(&name_, mode, waits, recording::Clock::memory, recording::here());
        try {
            got = act();
        } catch (...) {
            if (const int error = recording::current_errno(); error != 0) call.failed(error);
            throw;
        }
        got ? call.acquired() : call.failed(waits ? ETIMEDOUT : EAGAIN);
        return got;
    }
    template <class Act>
    void give_back(Mode mode, Act act) {
        Call::release(&name_, mode, recording::here());
        act();
    }
    void change(Mode from, Mode to) {
        Call::release(&name_, from, recording::here());
        Call call(&name_, to, false, recording::Clock::memory, recording::here());
        call.acquired();
    }

    L lock_;
    recording::LockName name_;
};

}  // namespace planloop

#endif
