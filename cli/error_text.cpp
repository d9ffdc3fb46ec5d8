#include "cli/error_text.h"

#include <fmt/format.h>

#include "analysis/render/text.h"
#include "cli/json_access.h"

namespace planloop::cli {
namespace {

std::string milliseconds(const Json &object, const char *key) {
    return analysis::short_duration(static_cast<std::int64_t>(json_number(object, key) * 1e6));
}

std::string place(const Json &frame) {
    const std::string file = shown(frame, "file");
    if (file.empty()) {
        const std::string module = shown(frame, "module");
        return module.empty() ? shown(frame, "address") : fmt::format("{}+{}", module, shown(frame, "offset"));
    }
    const std::string line = json_text(frame, "line");
    return line.empty() ? file : fmt::format("{}:{}", file, line);
}

void append_stack(std::string &out, const Json &frames, std::string_view indent) {
    std::size_t number = 0;
    for (const Json &frame : frames) {
        const std::string function = shown(frame, "function");
        out += fmt::format("{}#{:<2} {}  {}{}\n", indent, number++, function.empty() ? "?" : function, place(frame),
                           json_at(frame, "inlined") == true ? "  (inlined)" : "");
        const std::string code = shown(frame, "code");
        if (!code.empty()) out += fmt::format("{}      {}\n", indent, code);
    }
}

void append_locks(std::string &out, const Json &locks, std::string_view what, const char *how_long) {
    for (const Json &lock : locks) {
        const std::string path = shown(lock, "path");
        out += fmt::format("{} {} {}, {}, {} since {}", what, shown(lock, "family"), path.empty() ? "lock" : path,
                           shown(lock, "mode"), milliseconds(lock, how_long), shown(lock, "since"));
        const std::string error = shown(lock, "error");
        out += error.empty() ? "\n" : fmt::format(", in vain: {}\n", error);
    }
}

void append_values(std::string &out, const Json &report) {
    const Json &captured = json_list(report, "captured_values");
    if (!captured.empty()) {
        out += "values, innermost first\n";
        for (const Json &value : captured) {
            out += fmt::format("  {} = {}    ({}, line {})\n", shown(value, "name"), shown(value, "value"),
                               shown(value, "function"), shown(value, "line"));
        }
        return;
    }
    const Json &locals = json_at(report, "local_variables");
    if (!locals.is_object() || locals.empty()) return;
    out += "values\n";
    for (const auto &[name, value] : locals.items()) {
        out += fmt::format("  {} = {}\n", analysis::terminal_text(name),
                           analysis::terminal_text(value.is_string() ? value.get<std::string>() : json_dump(value)));
    }
}

}  // namespace

Result<std::string> error_text(std::string_view text) {
    const Json report = Json::parse(text, nullptr, false);
    if (!report.is_object()) return Error{"it is no JSON object"};
    std::string out = fmt::format("error {}: {}\n", shown(report, "error_type"), shown(report, "error_message"));
    out += fmt::format("  {}  {}", shown(report, "trace_id"), shown(report, "timestamp"));
    const std::string operation = shown(report, "operation");
    if (!operation.empty()) out += fmt::format("  {}", operation);
    const std::string process = shown(report, "process");
    if (!process.empty()) out += fmt::format(" in {} {}", process, shown(report, "pid"));
    const std::string signal = shown(report, "signal");
    if (!signal.empty()) out += fmt::format(", killed by {} at address {}", signal, shown(report, "fault_address"));
    out += '\n';
    const std::string function = shown(report, "function");
    if (!function.empty()) out += fmt::format("in {}\n", function);
    append_values(out, report);
    const std::string of = shown(report, "stack_trace_of");
    if (!json_list(report, "stack_trace").empty()) {
        out += fmt::format("stack{}, innermost first\n", of.empty() ? "" : " of the " + of);
        append_stack(out, json_list(report, "stack_trace"), "  ");
    }
    for (const Json &nested : json_list(report, "nested")) {
        out += fmt::format("caused by {}: {}\n", shown(nested, "error_type"), shown(nested, "error_message"));
        append_stack(out, json_list(nested, "stack_trace"), "    ");
    }
    append_locks(out, json_list(report, "locks_held"), "held", "held_ms");
    append_locks(out, json_list(report, "locks_awaited"), "waited for", "waited_ms");
    const Json &spans = json_list(report, "spans");
    if (!spans.empty()) out += "last spans\n";
    for (const Json &span : spans) {
        out += fmt::format("  {} {}{}\n", shown(span, "name"), milliseconds(span, "duration_ms"),
                           json_at(span, "open") == true ? ", open" : "");
    }
    const std::string state = shown(report, "state_snapshot_path");
    if (!state.empty()) out += fmt::format("state       {}\n", state);
    const std::string transcript = shown(report, "llm_transcript_link");
    if (!transcript.empty()) out += fmt::format("transcript  {}\n", transcript);
    return out;
}

}  // namespace planloop::cli
