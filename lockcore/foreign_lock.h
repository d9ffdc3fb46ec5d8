// What programs that know no guard, as the Python planloop, have in a session's way: older entries of `.lock_queue/`,
// and a `.lock`. It tells what to sleep on until that may have changed, and removes what is left of the dead.
//
// A `.lock` was left behind when `.lock_info` names a process that is gone, or that started later than it says, seen so
// twice 50 ms apart; or when it is 5 s old and has no readable `.lock_info`. Call it with the guard held: then nobody
// else of us removes it, and the lock that is judged is the one that is removed.
//
// Errors: none; what cannot be watched is looked at again every 50 ms. Threads: one at a time. Signals: not
// async-signal-safe. Lifetime: session and journal must stay.
#ifndef PLANLOOP_LOCKCORE_FOREIGN_LOCK_H
#define PLANLOOP_LOCKCORE_FOREIGN_LOCK_H

#include <sys/stat.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>

#include "lockcore/deadline.h"
#include "lockcore/descriptor.h"
#include "lockcore/session.h"
#include "lockcore/session_journal.h"
#include "lockcore/session_queue.h"

namespace planloop {

// Something that stands in the way: readable `watch` or `process`, or the time, says that it may be gone.
struct Obstacle {
    Descriptor watch, process;
    SteadyClock::time_point look_again = kNoDeadline;
    std::size_t before_us = 0;
};

class ForeignLock {
  public:
    ForeignLock(const Session &session, SessionJournal &journal) : session_(session), journal_(journal) {}

    // Entries that are older than that; nothing: there are none.
    std::optional<Obstacle> entries_before(std::int64_t utc_us) const;
    // The `.lock`; nothing: it is gone, or was removed just now. `operation`: of who asks, for the log.
    std::optional<Obstacle> lock(const std::string &operation);

  private:
    bool is_over(const struct stat &lock, const LockHolder &holder, Obstacle &obstacle);

    const Session &session_;
    SessionJournal &journal_;
    std::string suspect_;  // a lock whose holder was found dead, and when first
    SteadyClock::time_point suspected_at_;
};

}  // namespace planloop

#endif
