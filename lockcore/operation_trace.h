// Which operation a thread is at work on: `start_operation_trace("update")`, and from then on every lock event that the
// thread causes carries that trace id and that name.
//
//   const std::string id = start_operation_trace("update");       // this thread, from now on
//   std::thread worker([trace = current_trace()] { const TraceScope scope(trace); ... });  // handed to another
//
// A process that was started with PLANLOOP_TRACE_ID, or else with TRACEPARENT (W3C Trace Context), keeps that trace id
// in all its operations: so one command and its children have one id. Without either each operation makes its own.
//
// Children: an operation that the main thread starts is put into the environment (both variables), and every child
// inherits it whatever starts it. The environment belongs to the whole process, so other threads do not write to it;
// what they start gets trace_environment() handed over.
//
// W3C ids are 32 hex digits, ours a time and six digits or more. An id of ours is packed into theirs with its length
// and comes out whole; one of theirs becomes the last part of one of ours and comes out whole as well. (An id of ours
// with more than 16 hex digits, which planloop never makes, is hashed on its way out.)
//
// Threads: every function is about the calling thread; setenv(3) and getenv(3) run in start_operation_trace() on the
// main thread, so start operations there before other threads read the environment. Signals: not async-signal-safe.
// Errors: none. Lifetime: ids are returned by value.
#ifndef PLANLOOP_LOCKCORE_OPERATION_TRACE_H
#define PLANLOOP_LOCKCORE_OPERATION_TRACE_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace planloop {

inline constexpr char kTraceParentVariable[] = "TRACEPARENT";

struct OperationTrace {
    std::string trace_id;   // empty: no operation was started, the process's own counts
    std::string operation;  // a short word: update, status
};

// Starts an operation on this thread and returns its trace id.
std::string start_operation_trace(std::string_view operation);

// What the thread is at work on; empty fields when nothing was started or handed over.
OperationTrace current_trace();
std::string current_trace_id();

// The process's own: what a thread counts as that started no operation. Inherited, or made at the first question.
std::string process_trace_id();

// Works under a trace that was handed over, and returns to the former one at the end of the scope.
class TraceScope {
  public:
    explicit TraceScope(const OperationTrace &trace);
    ~TraceScope();
    TraceScope(const TraceScope &) = delete;
    TraceScope &operator=(const TraceScope &) = delete;

  private:
    OperationTrace before_;
};

// `NAME=value` for each variable that hands the thread's trace to a child process.
std::vector<std::string> trace_environment();

// The 32 hex digits that stand for a trace id in W3C formats. Text that is no trace id gets some too, always the same.
std::string to_w3c_trace_id(std::string_view trace_id);
// `00-<32 hex digits>-<16 hex digits>-01`; each call names a new span of the trace.
std::string to_traceparent(std::string_view trace_id);
// Nothing when it is no valid header value of version 00 or later.
std::optional<std::string> from_traceparent(std::string_view value);

namespace recording {
// Changes whenever the thread's trace does, so that the recorder needs no comparison of texts. Never 0.
extern constinit thread_local std::uint32_t trace_serial;

// The thread's operation without a copy, for signal handlers; empty as in current_trace().
struct TraceTexts {
    const char *trace_id, *operation;
};
TraceTexts trace_texts() noexcept;
}  // namespace recording

}  // namespace planloop

#endif
