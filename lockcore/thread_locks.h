// Which locks a thread holds and waits for, for error reports and crashes, and how long it waited and held, for the
// operation that it is at work on (span.h). FileLock, traced and SessionLock tell it here.
//
// It is kept only while somebody wants to know: programs that link error contexts or crash capture want to from their
// start, others while an operation is recorded; else a lock pays one load. A thread's table has 32 places; what does
// not fit is counted.
//
// Units: UTC ns. Threads: each writes its own table; a release by another thread finds the entry where it is. Signals:
// for_each_lock() is async-signal-safe. Lifetime: names are borrowed from the lock, which outlives its holds.
#ifndef PLANLOOP_LOCKCORE_THREAD_LOCKS_H
#define PLANLOOP_LOCKCORE_THREAD_LOCKS_H

#include <atomic>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/wire/record.h"

namespace planloop {

struct ThreadLock {
    std::string family, path;  // path: of the file, or the name or label of the lock
    bool shared = false;
    std::int64_t since_utc_ns = 0;
    std::int64_t until_utc_ns = 0;  // a wait that failed; 0: goes on
    int error = 0;                  // why it failed
};

struct ThreadLocks {
    std::vector<ThreadLock> held, awaited;  // awaited: now, or the last that failed on this thread
    std::uint64_t not_shown = 0;
};
ThreadLocks locks_of_thread();

namespace recording {

extern constinit std::atomic<int> lock_watchers;
inline bool locks_are_watched() noexcept {
    return __builtin_expect(lock_watchers.load(std::memory_order_relaxed) != 0, 0);
}

struct LockNote {
    const void *key;  // the same for one lock; not followed
    wire::Family family;
    wire::Mode mode;
    const char *path;  // borrowed, see above
    bool of_session = false;
};
// Of the calling thread. Call them only when locks_are_watched().
void note_wait(const LockNote &lock) noexcept;
void note_held(const LockNote &lock) noexcept;
void note_failed(const LockNote &lock, int error) noexcept;
void note_released(const LockNote &lock) noexcept;

struct RawLock {
    wire::Family family;
    wire::Mode mode;
    bool held;  // else awaited
    const char *path;
    std::int64_t since_utc_ns;
};
// Of the calling thread.
void for_each_lock(void (*visit)(const RawLock &, void *), void *context) noexcept;

}  // namespace recording
}  // namespace planloop

#endif
