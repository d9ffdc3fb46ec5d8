#include "lockcore/error_context.h"

#include <cxxabi.h>
#include <errno.h>
#include <unistd.h>

#include <utility>

#include "lockcore/dev_mode.h"
#include "lockcore/error_report.h"
#include "lockcore/operation_trace.h"
#include "lockcore/span.h"

namespace planloop {
namespace {

constexpr std::size_t kMostNested = 16;

// Exceptions that were put around others, outermost first.
std::vector<NestedError> nested_in(const std::exception *outer) {
    std::vector<NestedError> found;
    const auto *around = dynamic_cast<const std::nested_exception *>(outer);
    std::exception_ptr next = around == nullptr ? nullptr : around->nested_ptr();
    while (next != nullptr && found.size() < kMostNested) {
        NestedError error;
        if (const ThrowMomentPointer moment = moment_of(next)) error.stack = name_frames(moment->stack.addresses());
        std::exception_ptr deeper;
        try {
            std::rethrow_exception(next);
        } catch (const std::exception &inner) {
            error.message = inner.what();
            if (const auto *more = dynamic_cast<const std::nested_exception *>(&inner)) deeper = more->nested_ptr();
            error.type = demangled(abi::__cxa_current_exception_type()->name());
        } catch (...) {
            error.type = demangled(abi::__cxa_current_exception_type()->name());
        }
        found.push_back(std::move(error));
        next = deeper;
    }
    return found;
}

Result<std::string> report(const Session &session, const ThrowMoment &moment, const std::type_info *type,
                           const std::exception *standard) {
    const Span span("error_report");
    ErrorReport report;
    report.utc_ns = moment.utc_ns;
    report.trace_id = current_trace_id();
    report.operation = current_trace().operation;
    report.process = program_invocation_short_name;
    if (report.operation.empty()) report.operation = report.process;
    report.type = type == nullptr ? "unknown" : demangled(type->name());
    report.message = standard == nullptr ? "" : standard->what();
    report.stack_trace_of = moment.seen_at_throw ? "throw" : "catch";
    report.stack = name_frames(moment.stack.addresses());
    report.values = moment.values;
    report.nested = nested_in(standard);
    report.locks = moment.locks;
    report.spans = moment.spans;
    report.pid = ::getpid();
    report.tid = moment.tid;
    return store_error(session, report);
}

}  // namespace

ErrorContext::ErrorContext(Session session) : session_(std::move(session)), exceptions_(std::uncaught_exceptions()) {}

ErrorContext::~ErrorContext() {
    if (std::uncaught_exceptions() <= exceptions_ || recording_refused()) return;
    try {
        const ThrowMomentPointer moment = moment_under_way();
        if (moment == nullptr) {
            static_cast<void>(report(session_, *present_moment(__builtin_return_address(0)), nullptr, nullptr));
        } else if (!moment->reported.exchange(true, std::memory_order_relaxed)) {
            static_cast<void>(report(session_, *moment, moment->type, as_standard(*moment->type, moment->object)));
        }
    } catch (...) {  // no memory: the program's own exception is what counts
    }
}

void report_current_exception(const Session &session) noexcept {
    try {
        static_cast<void>(report_error(session, std::current_exception()));
    } catch (...) {  // no memory: the program's own exception is what counts
    }
}

Result<std::string> report_error(const Session &session, const std::exception_ptr &exception) {
    if (exception == nullptr || recording_refused()) return std::string();
    const ThrowMomentPointer moment = moment_of(exception);
    if (moment != nullptr && moment->reported.exchange(true, std::memory_order_relaxed)) return std::string();
    const std::type_info *type = exception.__cxa_exception_type();
    return report(session, moment != nullptr ? *moment : *present_moment(__builtin_return_address(0)), type,
                  as_standard(*type, object_of(exception)));
}

}  // namespace planloop
