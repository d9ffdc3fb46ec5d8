// Where in which operation the calling thread is. Internal to lockcore: spans, locks and error reports meet here.
#ifndef PLANLOOP_LOCKCORE_SPAN_OF_THREAD_H
#define PLANLOOP_LOCKCORE_SPAN_OF_THREAD_H

#include <atomic>
#include <cstdint>
#include <string>
#include <typeinfo>

#include "lockcore/span_journal.h"
#include "lockcore/thread_locks.h"

namespace planloop::recording {

struct SpanOfThread {
    SpanJournal *journal = nullptr;  // nullptr: nothing is recorded
    std::uint32_t span = SpanJournal::kNone;
};
extern constinit thread_local SpanOfThread span_of_thread;

// A wait that is over, and a hold that is: for the sums of the operation, and the first as a span.
void count_lock_wait(const LockNote &lock, std::int64_t wait_ns) noexcept;
void count_lock_hold(std::int64_t hold_ns) noexcept;

// Type and message of the exception that is under way on this thread, where the program links what sees throws
// (throw_trace.h); nullptr: it does not. Gives false when there is none.
extern constinit std::atomic<bool (*)(std::string &text)> tells_exception;

// Looks at what is being thrown, from the code at `from`; nullptr: the program does not link it.
using SeesThrow = void(void *object, const std::type_info *type, const void *from) noexcept;
extern constinit std::atomic<SeesThrow *> sees_throws;

}  // namespace planloop::recording

#endif
