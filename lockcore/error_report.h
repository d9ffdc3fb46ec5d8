// An error report as data, and how it becomes files: see error_context.h for the form. Internal to lockcore:
// exceptions (error_context.cpp) and crashes (crash_capture.cpp) are told in one form.
//
// Errors: Result. Threads: no state. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_ERROR_REPORT_H
#define PLANLOOP_LOCKCORE_ERROR_REPORT_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/captured_value.h"
#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/span_journal.h"
#include "lockcore/stack_trace.h"
#include "lockcore/thread_locks.h"

namespace planloop {

struct NestedError {
    std::string type, message;
    std::vector<StackFrame> stack;
};

struct ErrorReport {
    std::int64_t utc_ns = 0;
    std::string trace_id, operation, process;
    std::string type, message;
    std::string_view stack_trace_of;  // throw, catch, signal
    std::vector<StackFrame> stack;
    std::vector<CapturedValue> values;
    std::vector<NestedError> nested;
    ThreadLocks locks;
    std::vector<SpanRecord> spans;
    int pid = 0, tid = 0;
    int signal = 0;  // 0: an exception
    std::uint64_t fault_address = 0;
};

// The report, the snapshot of the state, and the line in planloop.jsonl. Gives the report's path.
Result<std::string> store_error(const Session &session, const ErrorReport &report);

}  // namespace planloop

#endif
