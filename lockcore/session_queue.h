// The files by which planloop programs of any language see a session's lock: `.lock`, `.lock_info` and `.lock_queue/`
// in the session's folder, as the Python planloop writes and reads them.
//
//   .lock_queue/<uuid>.json  {"id","agent","operation","requested_at"}: somebody waits or holds; oldest first. Ours
//   tell
//                            the pid as well, since an agent may go by $PLANLOOP_AGENT_NAME
//   .lock                    made with O_EXCL semantics: somebody holds; ours says so inside, Python's is empty
//   .lock_info               {"held_by":"pid:N","since","operation"}
//
// Our entries carry their ticket's number in their name (a UUID of version 8) and as a field, so that what is left of a
// dead process can be told and removed without opening it.
//
// A holder or waiter is alive unless its agent is `pid:N` and no process N runs, or one that started after the time
// that is told (by more than two seconds, since wall clocks are set). All in one PID namespace.
//
// Errors: what cannot be read counts as not there, or as alive where that is the safe side; writing gives errno.
// Threads: no state. Signals: not async-signal-safe. Times: UTC ns.
#ifndef PLANLOOP_LOCKCORE_SESSION_QUEUE_H
#define PLANLOOP_LOCKCORE_SESSION_QUEUE_H

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/session.h"

namespace planloop {

struct LockHolder {
    std::string held_by;  // pid:N, or an agent's name; empty: not told
    std::string operation;
    std::int64_t since_utc_ns = 0;  // 0: not told

    pid_t pid() const;                // 0: not told
    std::string description() const;  // "pid:12 (update, since 2026-11-22T08:00:02Z)"
};

struct LockWaiter {
    std::string id, agent, operation;
    std::int64_t requested_utc_us = 0;
    std::uint64_t ticket = 0;  // 0: another program's, as Python's
    pid_t pid = 0;             // 0: not told
    bool readable = true;      // false: half written, and counted from when that was
};

struct LockQueue {
    std::optional<LockHolder> holder;  // empty: nobody is inside
    std::vector<LockWaiter> waiting;   // in the order of their turns
};

// What anybody can see; a moment later it may be otherwise.
LockQueue read_lock_queue(const Session &session);

// Whether a process of that number runs that had started by then. 0 ns: whenever.
bool process_was_there(pid_t pid, std::int64_t utc_ns);

namespace lock_files {

inline std::string lock(const Session &session) {
    return session.directory + "/.lock";
}
inline std::string info(const Session &session) {
    return session.directory + "/.lock_info";
}
inline std::string queue(const Session &session) {
    return session.directory + "/.lock_queue";
}
std::string entry_id(std::uint64_t ticket);
std::string entry(const Session &session, std::uint64_t ticket);

std::optional<LockHolder> read_info(const Session &session);
// Entries of other programs that are older than that, oldest first. Left out are those that are over: whose process is
// gone, and at over_utc_us(); the former, and what is older than any turn, is removed.
std::vector<LockWaiter> foreign_before(const Session &session, std::int64_t utc_us);
// When everybody takes an entry for left over: after the Python planloop's default time-out; one that its writer did
// not finish, as it may have been killed, after five seconds.
inline constexpr std::int64_t kLongestTurnUs = 30'000'000;
inline constexpr std::int64_t kUnfinishedUs = 5'000'000;
inline std::int64_t over_utc_us(const LockWaiter &waiter) {
    return waiter.requested_utc_us + (waiter.readable ? kLongestTurnUs : kUnfinishedUs);
}

// 0 or errno. Each appears whole or not at all; `scratch` is a folder of the same file system for what is unfinished.
int write_entry(const Session &session, const std::string &scratch, const LockWaiter &waiter);
int write_info(const Session &session, const std::string &scratch, const LockHolder &holder);

}  // namespace lock_files
}  // namespace planloop

#endif
