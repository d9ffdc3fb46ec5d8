// What was true at the moment of a throw: the stack, captured values, locks, spans. When an exception is caught, all
// that is unwound and gone.
//
// Programs that throw link throw_hook.cpp, which defines __cxa_throw (Itanium C++ ABI: Exception Handling, 2.4.3), and
// calls the run-time library's own by dlsym(RTLD_NEXT). Those that use error contexts also link throw_trace.cpp, which
// looks before that. It looks only while some error context is open anywhere in the process; else a throw costs two
// loads more.
// Rejected: looking where the exception is caught (the stack is gone); a personality routine on the stack that looks
// during the search phase (sees only the rethrow where something in between catches and throws on).
//
// Throws of shared libraries are seen too, since libstdc++ calls the function by name. Not seen: a program linked with
// -static-libstdc++ does not link with this; exceptions made by std::make_exception_ptr were never thrown.
//
// Threads: safe. Signals: not async-signal-safe. Errors: what there is no memory for is left out; the throw itself is
// never disturbed.
#ifndef PLANLOOP_LOCKCORE_THROW_TRACE_H
#define PLANLOOP_LOCKCORE_THROW_TRACE_H

#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <typeinfo>
#include <vector>

#include "lockcore/captured_value.h"
#include "lockcore/span_journal.h"
#include "lockcore/stack_trace.h"
#include "lockcore/thread_locks.h"

namespace planloop {

struct ThrowMoment {
    const std::type_info *type = nullptr;
    void *object = nullptr;  // the exception; alive while it is under way or held by an exception_ptr
    int under_way = 0;       // exceptions that this thread was unwinding for already
    std::int64_t utc_ns = 0;
    int tid = 0;
    mutable std::atomic<bool> reported = false;
    bool seen_at_throw = false;  // else it is of where it was caught
    StackTrace stack;
    std::vector<CapturedValue> values;
    ThreadLocks locks;
    std::vector<SpanRecord> spans;  // the last ones, and those that were open; by id
};
using ThrowMomentPointer = std::shared_ptr<const ThrowMoment>;

// While one lives, throws anywhere in the process are looked at.
class ThrowWatch {
  public:
    ThrowWatch() noexcept;
    ~ThrowWatch();
    ThrowWatch(const ThrowWatch &) = delete;
    ThrowWatch &operator=(const ThrowWatch &) = delete;
};

// Of the throw that made this exception, also when it was rethrown or came from another thread. nullptr: not seen, or
// too many (64) were thrown since.
ThrowMomentPointer moment_of(const std::exception_ptr &exception) noexcept;
// Of the exception that the calling thread is being unwound for; for destructors.
ThrowMomentPointer moment_under_way() noexcept;
// The same of here and now, without type and object; see StackTrace::take().
ThrowMomentPointer present_moment(const void *from = nullptr);

// The thrown object as a std::exception; nullptr when it is none.
const std::exception *as_standard(const std::type_info &type, void *object) noexcept;
// The object that an exception_ptr holds.
void *object_of(const std::exception_ptr &exception) noexcept;

}  // namespace planloop

#endif
