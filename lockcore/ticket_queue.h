// First come, first served between processes, without polling and without a lock that a dead one could keep: tickets.
//
// A ticket is a FIFO in the queue's folder, named by its number, whose writing end its owner holds. Who comes next
// opens the FIFO of the nearest live ticket before its own and waits in poll(2) for it to hang up, which the kernel
// makes it do when the owner leaves, or dies in whatever way. So a wait has a time-out, costs nothing, and wakes
// exactly one.
//
// Tickets give order and nothing else: exclusion must come from a lock of the kernel (SessionLock has one). Rejected: a
// chain in which each waiter blocks on a lock that its predecessor holds (when a waiting predecessor is killed, two
// go in); POSIX locks on the entries (lost as soon as the process opens and closes one to read the queue); a counter in
// shared memory alone (a number that was taken and has no file yet looks like one that has left).
//
// Numbers are given out under a FileLock that is held for some file operations, so a number that is seen means that
// all lower ones are there or gone. A FIFO appears under its number by rename, with its owner's end open: one without
// a writer is dead, and whoever meets it removes it.
//
// Threads: a queue may be used by several; a Ticket by one at a time. A forked child has no part in its parent's
// tickets. Signals: not async-signal-safe. Errors: std::system_error that names the folder. Cost: some 60 µs a ticket.
#ifndef PLANLOOP_LOCKCORE_TICKET_QUEUE_H
#define PLANLOOP_LOCKCORE_TICKET_QUEUE_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "lockcore/file_lock.h"

namespace planloop {

class TicketQueue {
  public:
    using Clock = FileLock::Clock;

    class Ticket {
      public:
        Ticket() = default;
        Ticket(Ticket &&other) noexcept;
        Ticket &operator=(Ticket &&other) noexcept;
        Ticket(const Ticket &) = delete;
        Ticket &operator=(const Ticket &) = delete;
        ~Ticket() { leave(); }

        void leave() noexcept;  // wakes the next
        explicit operator bool() const noexcept { return fd_ >= 0; }
        std::uint64_t number() const noexcept { return number_; }
        // When it was taken: µs since 1970, later than that of every lower number.
        std::int64_t utc_us() const noexcept { return utc_us_; }

      private:
        friend class TicketQueue;
        std::string path_;
        int fd_ = -1;
        std::uint64_t number_ = 0;
        std::int64_t utc_us_ = 0;
    };

    // What is before a ticket. `fd` hangs up (POLLHUP) when the nearest leaves; close it with ::close.
    struct Before {
        int fd = -1;            // -1: nobody, the ticket is the head
        std::size_t count = 0;  // tickets before it, some perhaps dead
    };

    // Makes the folder (0700) if it is missing. `removed(number)` is called before the FIFO of a dead owner goes.
    explicit TicketQueue(std::string folder, std::function<void(std::uint64_t number)> removed = {});

    // An empty ticket when others are taking theirs until the deadline.
    Ticket take(Clock::time_point deadline);
    Before before(const Ticket &ticket) const;

  private:
    std::string path_of(std::uint64_t number) const;

    std::string folder_;
    std::function<void(std::uint64_t)> removed_;
    FileLock issuing_;
};

}  // namespace planloop

#endif
