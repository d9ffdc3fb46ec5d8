#include "lockcore/error_report.h"

#include <fmt/format.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <set>

#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"
#include "lockcore/session_journal.h"
#include "lockcore/state_file.h"

namespace planloop {
namespace {

constexpr std::size_t kLongestMessage = 4000;

// Frames that throw for others.
constexpr std::array<std::string_view, 6> kNotTheCulprit{
    "std::", "__gnu_cxx::", "__cxa_", "planloop::value_or_throw", "nlohmann", "__cxxabiv1"};

class Writer {
  public:
    void key(std::string_view name) {
        out_ += comma_;
        append_json_string(out_, name);
        out_ += ':';
        comma_ = ",";
    }
    void text(std::string_view name, std::string_view value) {
        key(name);
        append_json_string(out_, value);
    }
    void text_or_null(std::string_view name, std::string_view value) {
        if (value.empty()) {
            raw(name, "null");
        } else {
            text(name, value);
        }
    }
    void raw(std::string_view name, std::string_view value) {
        key(name);
        out_ += value;
    }
    void time(std::string_view name, std::int64_t utc_ns) { text(name, format_utc(utc_ns)); }
    void milliseconds(std::string_view name, std::int64_t ns) {
        key(name);
        append_milliseconds(out_, ns);
    }
    void open(char bracket) {
        out_ += bracket;
        comma_ = "";
    }
    void close(char bracket) {
        out_ += bracket;
        comma_ = ",";
    }
    // An element of a list, on a line of its own.
    void element() {
        out_ += comma_;
        out_ += '\n';
    }
    std::string take() { return std::move(out_); }

  private:
    std::string out_;
    std::string_view comma_;
};

void write_frames(Writer &json, const std::vector<StackFrame> &frames) {
    json.key("stack_trace");
    json.open('[');
    for (const StackFrame &frame : frames) {
        json.element();
        json.open('{');
        json.text("file", frame.file);
        json.raw("line", frame.line > 0 ? std::to_string(frame.line) : "null");
        json.text("function", frame.function);
        json.text("code", shortened(redacted(frame.code)));
        json.text("module", frame.module);
        json.text("address", fmt::format("{:#x}", frame.address));
        json.text("offset", fmt::format("{:#x}", frame.offset));
        json.raw("inlined", frame.inlined ? "true" : "false");
        json.close('}');
    }
    json.close(']');
}

void write_locks(Writer &json, std::string_view name, const std::vector<ThreadLock> &locks, std::string_view how_long,
                 std::int64_t now_utc_ns) {
    json.key(name);
    json.open('[');
    for (const ThreadLock &lock : locks) {
        json.element();
        json.open('{');
        json.text("family", lock.family);
        json.text("path", lock.path);
        json.text("mode", lock.shared ? "shared" : "exclusive");
        json.time("since", lock.since_utc_ns);
        json.milliseconds(how_long, (lock.until_utc_ns != 0 ? lock.until_utc_ns : now_utc_ns) - lock.since_utc_ns);
        if (lock.error != 0) {
            const char *symbol = ::strerrorname_np(lock.error);
            json.text("error", symbol != nullptr ? symbol : std::to_string(lock.error));
        }
        json.close('}');
    }
    json.close(']');
}

void write_values(Writer &json, const std::vector<CapturedValue> &values) {
    json.key("local_variables");
    json.open('{');
    std::set<std::string_view> told;
    for (const CapturedValue &value : values) {
        if (told.insert(value.name).second) json.text(value.name, value.value);
    }
    json.close('}');
}

void write_value_list(Writer &json, const std::vector<CapturedValue> &values) {
    json.key("captured_values");
    json.open('[');
    for (const CapturedValue &value : values) {
        json.element();
        json.open('{');
        json.text("name", value.name);
        json.text("value", value.value);
        json.text("function", value.function);
        json.raw("line", std::to_string(value.line));
        json.close('}');
    }
    json.close(']');
}

void write_nested(Writer &json, const std::vector<NestedError> &nested) {
    json.key("nested");
    json.open('[');
    for (const NestedError &error : nested) {
        json.element();
        json.open('{');
        json.text("error_type", error.type);
        json.text("error_message", shortened(redacted(error.message), kLongestMessage));
        write_frames(json, error.stack);
        json.close('}');
    }
    json.close(']');
}

void write_spans(Writer &json, const std::vector<SpanRecord> &spans, std::int64_t now_utc_ns) {
    json.key("spans");
    json.open('[');
    for (const SpanRecord &span : spans) {
        const bool open = span.end_utc_ns == 0;
        json.element();
        json.open('{');
        json.text("name", span.name);
        json.time("start_time", span.begin_utc_ns);
        json.milliseconds("duration_ms",
                          std::max<std::int64_t>((open ? now_utc_ns : span.end_utc_ns) - span.begin_utc_ns, 0));
        json.raw("open", open ? "true" : "false");
        json.raw("tid", std::to_string(span.tid));
        json.close('}');
    }
    json.close(']');
}

// "apply" of "planloop::apply(int) const": without its arguments.
std::string_view without_arguments(std::string_view function) {
    const std::size_t last = function.rfind(')');
    if (last == std::string_view::npos || last + 10 < function.size()) return function;
    int depth = 0;
    for (std::size_t i = last + 1; i-- > 0;) {
        if (function[i] == ')') ++depth;
        if (function[i] == '(' && --depth == 0) {
            return i == 0 || function.substr(0, i).ends_with("operator") ? function : function.substr(0, i);
        }
    }
    return function;
}

std::string culprit(const std::vector<StackFrame> &stack) {
    for (const StackFrame &frame : stack) {
        const bool helper = std::any_of(kNotTheCulprit.begin(), kNotTheCulprit.end(), [&](std::string_view prefix) {
            // Of a template the return type stands in front: "int std::…".
            const std::string_view name = without_arguments(frame.function);
            return name.starts_with(prefix) || name.find(' ' + std::string(prefix)) < name.find('<');
        });
        if (!helper && !frame.function.empty()) return std::string(without_arguments(frame.function));
    }
    return stack.empty() ? "" : std::string(without_arguments(stack.front().function));
}

std::string document(const Session &session, const ErrorReport &report, bool has_state) {
    const std::string transcript = fmt::format("{}/{}_llm.json", transcripts_dir(session), report.trace_id);
    Writer json;
    json.open('{');
    json.time("timestamp", report.utc_ns);
    json.text("trace_id", report.trace_id);
    json.text("error_type", report.type);
    json.text("error_message", shortened(redacted(report.message), kLongestMessage));
    json.text("function", culprit(report.stack));
    write_values(json, report.values);
    write_frames(json, report.stack);
    json.text_or_null("state_snapshot_path", has_state ? errors_dir(session) + "/{stem}_state.json" : std::string());
    json.text_or_null("llm_transcript_link", ::access(transcript.c_str(), F_OK) == 0 ? transcript : std::string());
    json.text("operation", report.operation);
    json.text("session_id", session.id);
    json.raw("pid", std::to_string(report.pid));
    json.raw("tid", std::to_string(report.tid));
    json.text("process", report.process);
    json.text("stack_trace_of", report.stack_trace_of);
    if (report.signal != 0) {
        const char *symbol = ::sigabbrev_np(report.signal);
        json.text("signal", symbol != nullptr ? fmt::format("SIG{}", symbol) : std::to_string(report.signal));
        json.text("fault_address", fmt::format("{:#x}", report.fault_address));
    }
    write_value_list(json, report.values);
    write_nested(json, report.nested);
    write_locks(json, "locks_held", report.locks.held, "held_ms", report.utc_ns);
    write_locks(json, "locks_awaited", report.locks.awaited, "waited_ms", report.utc_ns);
    write_spans(json, report.spans, report.utc_ns);
    json.close('}');
    return json.take() + '\n';
}

// The state as it is, without secrets; what is no JSON as a text in one. Empty: there is none.
std::string state_snapshot(const Session &session) {
    constexpr std::size_t kMostOfBroken = std::size_t{64} << 10;
    const auto state = read_record(state_path(session), kLargestStateBytes);
    if (!state) return {};
    if (nlohmann::json::accept(*state)) return redacted_json(*state);
    std::string broken = "{\"unreadable\":";
    append_json_string(broken, shortened(redacted(*state), kMostOfBroken));
    return broken + "}\n";
}

void log_error(const Session &session, const ErrorReport &report, const std::string &path) {
    std::string context = "{\"kind\":\"error\",\"error_type\":";
    append_json_string(context, report.type);
    context += ",\"report\":";
    append_json_string(context, path);
    context += '}';
    SessionJournal(session).write("ERROR", report.operation, shortened(redacted(report.message), kLongestMessage),
                                  context);
}

}  // namespace

Result<std::string> store_error(const Session &session, const ErrorReport &report) {
    const std::string state = state_snapshot(session);
    const std::string error = document(session, report, !state.empty());
    const std::array parts{RecordPart{"_error.json", error, true}, RecordPart{"_state.json", state}};
    const auto stem = write_record(errors_dir(session), report.trace_id, std::span(parts).first(state.empty() ? 1 : 2));
    if (!stem) return stem.error();
    std::string path = fmt::format("{}/{}_error.json", errors_dir(session), *stem);
    log_error(session, report, path);
    return path;
}

}  // namespace planloop
