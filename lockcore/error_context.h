// An error with everything around it, in `errors/{trace_id}_error.json`, so that one that happened on another machine
// last night can be understood from its trace id.
//
//   capture_error_context(session, [&] { update(…); });       // reports what fn throws, then throws it on, unchanged
//   ErrorContext context(session);                            // the same for a scope; reports when one is left by an
//                                                             // exception
//
//   {"timestamp":"…Z","trace_id":"tr_…","error_type":"std::out_of_range","error_message":"…","function":"apply_update",
//    "local_variables":{"task_id":"42"},
//    "stack_trace":[{"file":"/src/plan.cpp","line":12,"function":"apply_update(…)","code":"state.at(id);",
//                    "module":"/usr/bin/planloop","address":"0x55…","offset":"0x1234","inlined":false}],
//    "state_snapshot_path":"…/errors/tr_…_state.json","llm_transcript_link":"…/llm_transcripts/tr_…_llm.json",
//    "operation":"update","session_id":"x","pid":1,"tid":1,"process":"planloop","stack_trace_of":"throw",
//    "captured_values":[{"name":"task_id","value":"42","function":"apply","line":10}],
//    "nested":[{"error_type":"…","error_message":"…","stack_trace":[…]}],
//    "locks_held":[{"family":"named_mutex","path":"…/.lock","mode":"exclusive","since":"…Z","held_ms":12.1}],
//    "locks_awaited":[{"family":"posix","path":"…","mode":"exclusive","since":"…Z","waited_ms":30000.0,"error":"ETIMEDOUT"}],
//    "spans":[{"name":"load_state","start_time":"…Z","duration_ms":1.2,"open":true}]}
//
// The stack, the values, the locks and the spans are those of the moment of the throw (throw_trace.h);
// `stack_trace_of` says `throw`, `catch` when that was not seen, or `signal` (crash_capture.h; then also `signal`,
// `fault_address`). `function` is the innermost one that is not of the C++ library. `stack_trace` is innermost first.
// `local_variables` has one text for each name, the innermost scope's; `captured_values` has all. `nested` follows
// std::nested_exception, outermost first. `line` is null and `file`, `code` are "" where not known. The two links are
// null where there is no such file; a transcript that is written later is found by its trace id.
//
// Values are redacted (redact.h) and cut at 200 bytes. A line of level ERROR in planloop.jsonl names the report. An
// exception that passes several contexts is reported by the innermost. PLANLOOP_NO_RECORDING=1: nothing is written, the
// exception goes on. A report that cannot be written (full disk) leaves nothing behind and changes nothing for the
// program. A cancelled thread (pthread_cancel(3)) unwinds through without a report.
//
// Threads: each has its own contexts; an exception that another thread threw (std::future) is reported with that
// thread's moment. Signals: not async-signal-safe. Lifetime: the session is copied.
#ifndef PLANLOOP_LOCKCORE_ERROR_CONTEXT_H
#define PLANLOOP_LOCKCORE_ERROR_CONTEXT_H

#include <exception>
#include <string>
#include <type_traits>
#include <utility>

#include "lockcore/captured_value.h"
#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/throw_trace.h"

namespace planloop {

// Reports the exception that is being handled, if it is one of C++. For catch clauses; whatever goes wrong is let go.
void report_current_exception(const Session &session) noexcept;

template <class Function>
decltype(auto) capture_error_context(const Session &session, Function &&function) {
    const ThrowWatch watch;
    try {
        return std::forward<Function>(function)();
    } catch (...) {
        report_current_exception(session);
        throw;
    }
}

// For a scope. An exception that came from another thread is told without its type here: nothing was thrown on this
// one.
class ErrorContext {
  public:
    explicit ErrorContext(Session session);
    ~ErrorContext();
    ErrorContext(const ErrorContext &) = delete;
    ErrorContext &operator=(const ErrorContext &) = delete;

  private:
    ThrowWatch watch_;
    Session session_;
    int exceptions_;
};

// The report of an exception that is being handled, for code that does not let it go on. Gives its path; empty: it was
// reported before, or recording is refused.
Result<std::string> report_error(const Session &session, const std::exception_ptr &exception);

// What a Result's Error becomes where a program goes on by exceptions.
class OperationFailed : public std::exception {
  public:
    explicit OperationFailed(std::string message) : message_(std::move(message)) {}
    const char *what() const noexcept override { return message_.c_str(); }

  private:
    std::string message_;
};
template <class T>
T value_or_throw(Result<T> result) {
    if (!result) throw OperationFailed(result.error().message);
    if constexpr (!std::is_void_v<T>) return std::move(*result);
}

}  // namespace planloop

#endif
