// The lock of a session: one planloop at a time, in the order in which they came, whichever language they are in.
//
//   SessionLock lock(session, {.operation = "update"});
//   const std::lock_guard guard(lock);                    // throws after 30 s, and says who was in the way
//
// Exclusion and order are kept apart. Exclusion is a lock of the kernel on `.lock_wait/guard`, a file that nobody ever
// unlinks, so it ends with its holder, however that ends; order is a queue of tickets (ticket_queue.h) and may go wrong
// without letting two in. A waiter sleeps until the one before it leaves or dies; it does not poll.
//
// For the Python planloop, and for people, the same is told by its files (session_queue.h): an entry in `.lock_queue/`,
// and while inside `.lock` and `.lock_info`. Towards Python programs this lock behaves as one of them: it waits behind
// older entries, and for `.lock` to go (inotify(7), and pidfds of their processes, since they may be killed). What
// they leave behind is removed, with a line in the log (foreign_lock.h says when). Our `.lock` is known by what is in
// it: found by whoever has the guard, its owner is dead.
//
// Waiting is limited: lock() gives up after Options::time_out with SessionLockTimedOut, which names the holder,
// its operation, since when, and how many were before us; try_lock_for() returns false, and time_out_message() has the
// same line. try_lock() asks once. on_position is told how many are before us, when a wait begins and when that
// changes.
//
// A holder that stays for 5 turns (of 100 ms: the Python planloop's interval) while others wait is a stalled queue:
// those who wait write a line to the log, and stall() tells whoever gets in, to raise the blocker signal `queue_stall`.
//
// Events: lock_requested, lock_acquired, lock_failed, lock_released as lines of planloop.jsonl as they happen, lock id
// `session`, with operation and trace id (operation_trace.h). A line costs some µs of the 100 that the lock takes.
//
// Errors: std::system_error whose text names the file: a folder that cannot be written, a full disk. Nothing stays
// behind. Threads: one SessionLock for each, or one for several: they queue like processes, so a thread that asks for
// what it holds waits until its time is up. unlock() by who locked. A forked child holds nothing. Signals: not
// async-signal-safe. Cancellation: only while it sleeps; who is cancelled leaves the queue. Lifetime: the session's
// folder must stay, and nobody may remove `.lock_wait/` from it while it is used.
#ifndef PLANLOOP_LOCKCORE_SESSION_LOCK_H
#define PLANLOOP_LOCKCORE_SESSION_LOCK_H

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "lockcore/deadline.h"
#include "lockcore/session.h"
#include "lockcore/session_queue.h"

namespace planloop {

struct SessionLockOptions {
    std::string operation{};  // empty: that of the thread's operation trace
    std::chrono::milliseconds time_out{30'000};
    std::function<void(std::size_t before_us)> on_position{};
};

class SessionLockTimedOut : public std::system_error {
  public:
    explicit SessionLockTimedOut(std::string message)
        : std::system_error(std::error_code(ETIMEDOUT, std::generic_category())), message_(std::move(message)) {}
    const char *what() const noexcept override { return message_.c_str(); }

  private:
    std::string message_;
};

class SessionLock {
  public:
    using Clock = SteadyClock;
    using Options = SessionLockOptions;

    struct Stall {
        LockHolder holder;
        std::chrono::milliseconds seen_for{};
        std::size_t before_us = 0;
    };

    // The session exists. Makes `.lock_wait/` and `.lock_queue/` in its folder (0700).
    explicit SessionLock(const Session &session, Options options = {});
    SessionLock(const SessionLock &) = delete;
    SessionLock &operator=(const SessionLock &) = delete;
    ~SessionLock();  // unlocks

    void lock();
    bool try_lock();
    template <class Rep, class Period>
    bool try_lock_for(const std::chrono::duration<Rep, Period> &wait) {
        return acquire(deadline_after(wait));
    }
    template <class OtherClock, class Duration>
    bool try_lock_until(const std::chrono::time_point<OtherClock, Duration> &when) {
        return acquire(deadline_at(when));
    }
    void unlock();

    // Of the last acquisition.
    const std::optional<Stall> &stall() const;
    std::string time_out_message() const;

  private:
    bool acquire(Clock::time_point deadline);

    class State;
    std::unique_ptr<State> state_;
};

}  // namespace planloop

#endif
