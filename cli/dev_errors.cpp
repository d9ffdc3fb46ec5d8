// planloop dev errors list, planloop dev errors show ID: what went wrong in a session, and one of them in full.

#include <fmt/format.h>

#include "analysis/render/escape.h"
#include "analysis/session_records.h"
#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/output.h"
#include "cli/record_lookup.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"

namespace planloop::cli {
namespace {

using analysis::RecordedError;
using analysis::terminal_text;

constexpr std::size_t kMostOfMessage = 100;

std::string as_json(const Session &session, const RecordedError &error) {
    std::string out = "{\"trace_id\":";
    const auto field = [&](std::string_view key, std::string_view value) {
        out += fmt::format(",\"{}\":", key);
        append_json_string(out, value);
    };
    append_json_string(out, error.trace_id);
    field("timestamp", format_utc(error.utc_ns));
    field("operation", error.operation);
    field("error_type", error.type);
    field("error_message", error.message);
    field("function", error.function);
    field("process", error.process);
    out += fmt::format(",\"pid\":{}", error.pid);
    field("path", fmt::format("{}/{}_error.json", errors_dir(session), error.file));
    return out + '}';
}

}  // namespace

Result<int> run_dev_errors_list(const Arguments &arguments) {
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    const analysis::SessionRecords records = analysis::read_session_records(*session);
    for (const std::string &note : records.notes) say(note);
    if (arguments.has("--json")) {
        std::string_view comma = "\n";
        write_out("[");
        for (const RecordedError &error : records.errors) {
            write_out(fmt::format("{}{}", comma, as_json(*session, error)));
            comma = ",\n";
        }
        write_out("\n]\n");
        return kExitDone;
    }
    if (records.errors.empty()) write_out(fmt::format("no errors in session {}\n", terminal_text(session->id)));
    for (const RecordedError &error : records.errors) {
        write_out(fmt::format("{}  {:<30} {:<12} {}: {}\n", format_utc(error.utc_ns).substr(0, 19), error.trace_id,
                              terminal_text(error.operation), terminal_text(error.type),
                              terminal_text(shortened(error.message, kMostOfMessage))));
    }
    return kExitDone;
}

Result<int> run_dev_errors_show(const Arguments &arguments) {
    const auto trace = find_trace(arguments, arguments.operands[0], Wanted::error);
    if (!trace) return trace.error();
    std::string_view between;
    for (const std::string &path : records_of_trace(errors_dir(trace->session), trace->id, "_error.json")) {
        const auto report = read_record(path);
        if (!report) return report.error();
        if (arguments.has("--json")) {
            write_out(*report);
            if (!report->empty() && report->back() != '\n') write_out("\n");
            continue;
        }
        const auto text = error_text(*report);
        if (!text) return Error{fmt::format("{}: {}", printable(path), text.error().message)};
        write_out(fmt::format("{}{}report      {}\n", between, *text, terminal_text(path)));
        between = "\n";
    }
    return kExitDone;
}

}  // namespace planloop::cli
