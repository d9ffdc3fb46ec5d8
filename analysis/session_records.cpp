#include "analysis/session_records.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string_view>

#include "lockcore/clock.h"
#include "lockcore/record_files.h"
#include "lockcore/result.h"

namespace planloop::analysis {
namespace {

using Json = nlohmann::json;

constexpr std::string_view kErrorEnding = "_error.json";
constexpr std::string_view kTraceEnding = ".json";
constexpr double kNsPerMs = 1e6;

// A member of an object, if it is there and what it should be. Invalid UTF-8 is replaced, never thrown about.
std::string text_in(const Json &object, const char *key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_string() ? at->get<std::string>() : std::string();
}

template <class Integer>
Integer integer_in(const Json &object, const char *key) {
    const auto at = object.find(key);
    return at != object.end() && at->is_number_integer() ? at->get<Integer>() : Integer{0};
}

std::int64_t milliseconds_in(const Json &object, const char *key) {
    const auto at = object.find(key);
    if (at == object.end() || !at->is_number()) return 0;
    const double ns = at->get<double>() * kNsPerMs;
    constexpr double kMost = 9e18;  // what an int64 holds, about
    return std::isfinite(ns) ? static_cast<std::int64_t>(std::clamp(ns, 0.0, kMost)) : 0;
}

std::int64_t time_in(const Json &object, const char *key) {
    return parse_utc(text_in(object, key)).value_or(0);
}

std::string shown(const Json &value) {
    if (value.is_string()) return value.get<std::string>();
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

// From a begin to an end. `duration_ms` is of a clock that never steps but has microseconds; the two times have
// nanoseconds, and count as long as they mean the same.
std::int64_t duration_in(const Json &object, const char *begin, const char *end) {
    constexpr std::int64_t kRoundingNs = 1'000;
    const std::int64_t rounded_ns = milliseconds_in(object, "duration_ms");
    const std::int64_t exact_ns = time_in(object, end) - time_in(object, begin);
    return std::abs(exact_ns - rounded_ns) <= kRoundingNs ? exact_ns : rounded_ns;
}

RecordedSpan span_of(const Json &object) {
    RecordedSpan span;
    span.name = text_in(object, "name");
    span.parent = text_in(object, "parent");
    if (std::string status = text_in(object, "status"); !status.empty()) span.status = std::move(status);
    span.error = text_in(object, "error");
    span.id = integer_in<std::uint64_t>(object, "id");
    span.parent_id = integer_in<std::uint64_t>(object, "parent_id");
    span.begin_utc_ns = time_in(object, "start_time");
    span.duration_ns = duration_in(object, "start_time", "end_time");
    span.open = text_in(object, "end_time").empty();
    span.pid = integer_in<std::int32_t>(object, "pid");
    span.tid = integer_in<std::int32_t>(object, "tid");
    if (const auto metadata = object.find("metadata"); metadata != object.end() && metadata->is_object())
        for (const auto &[key, value] : metadata->items()) span.metadata.emplace_back(key, shown(value));
    return span;
}

RecordedTrace trace_of(const Json &document) {
    RecordedTrace trace;
    trace.trace_id = text_in(document, "trace_id");
    trace.operation = text_in(document, "operation");
    trace.status = text_in(document, "status");
    trace.process = text_in(document, "process");
    if (const auto command = document.find("command"); command != document.end() && command->is_array())
        for (const Json &word : *command) trace.command.push_back(shown(word));
    trace.begin_utc_ns = time_in(document, "started_at");
    trace.duration_ns = duration_in(document, "started_at", "completed_at");
    trace.pid = integer_in<std::int32_t>(document, "pid");
    trace.lock_wait_ns = milliseconds_in(document, "lock_wait_ms");
    trace.lock_hold_ns = milliseconds_in(document, "lock_hold_ms");
    trace.spans_dropped = integer_in<std::uint64_t>(document, "spans_dropped");
    if (const auto spans = document.find("spans"); spans != document.end() && spans->is_array())
        for (const Json &span : *spans)
            if (span.is_object()) trace.spans.push_back(span_of(span));
    return trace;
}

RecordedError error_of(const Json &document, std::string_view file) {
    RecordedError error;
    error.file = file;
    error.trace_id = text_in(document, "trace_id");
    error.operation = text_in(document, "operation");
    error.type = text_in(document, "error_type");
    error.message = text_in(document, "error_message");
    error.function = text_in(document, "function");
    error.process = text_in(document, "process");
    error.utc_ns = time_in(document, "timestamp");
    error.pid = integer_in<std::int32_t>(document, "pid");
    return error;
}

// Every object of a folder's files that end so; `take(document, name without the ending)`.
template <class Take>
void read_folder(const std::string &folder, std::string_view ending, std::vector<std::string> &notes,
                 const Take &take) {
    for (const std::string &name : list_records(folder, ending)) {
        const std::string path = fmt::format("{}/{}", folder, name);
        const Result<std::string> content = read_record(path);
        if (!content) {
            notes.push_back(content.error().message);
            continue;
        }
        const Json document = Json::parse(*content, nullptr, false);
        if (!document.is_object()) {
            notes.push_back(fmt::format("{} is no JSON object and was passed over", path));
            continue;
        }
        take(document, std::string_view(name).substr(0, name.size() - ending.size()));
    }
}

}  // namespace

SessionRecords read_session_records(const Session &session) {
    SessionRecords records;
    read_folder(traces_dir(session), kTraceEnding, records.notes, [&](const Json &document, std::string_view name) {
        RecordedTrace trace = trace_of(document);
        if (trace.trace_id.empty()) trace.trace_id = name;
        records.traces.push_back(std::move(trace));
    });
    read_folder(errors_dir(session), kErrorEnding, records.notes, [&](const Json &document, std::string_view name) {
        records.errors.push_back(error_of(document, name));
    });
    std::stable_sort(records.traces.begin(), records.traces.end(),
                     [](const RecordedTrace &a, const RecordedTrace &b) { return a.begin_utc_ns < b.begin_utc_ns; });
    std::stable_sort(records.errors.begin(), records.errors.end(),
                     [](const RecordedError &a, const RecordedError &b) { return a.utc_ns < b.utc_ns; });
    return records;
}

}  // namespace planloop::analysis
