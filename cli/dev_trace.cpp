// planloop dev trace ID: all that one trace id left, on one page and in time order; first what went wrong.

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <string_view>

#include "analysis/render/escape.h"
#include "analysis/render/names.h"
#include "analysis/render/text.h"
#include "cli/command.h"
#include "cli/error_text.h"
#include "cli/json_access.h"
#include "cli/output.h"
#include "cli/record_lookup.h"
#include "cli/trace_records.h"
#include "cli/trace_view.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/redact.h"

namespace planloop::cli {
namespace {

using analysis::EventKind;
using analysis::short_duration;
using analysis::terminal_text;
using analysis::TimelineEntry;

constexpr std::size_t kMostOfText = 300;
constexpr std::size_t kMostChanges = 12;

struct Moment {
    std::int64_t utc_ns = 0;
    std::string kind, text;
};

std::string lock_name(const TimelineEntry &entry) {
    return entry.path.empty() ? entry.lock : terminal_text(entry.path);
}

std::string waited_for(const TraceRecords &records, const TimelineEntry &entry) {
    std::string out;
    for (const analysis::Blocker &blocker : entry.blocked_by) {
        out += fmt::format("{}{} for {}", out.empty() ? ", held by " : " and ", holder_text(records, blocker),
                           short_duration(blocker.ns));
    }
    return out;
}

std::string lock_text(const TraceRecords &records, const TimelineEntry &entry) {
    const std::string name = lock_name(entry);
    switch (entry.kind) {
        case EventKind::lock_requested:
            return fmt::format("requested {}{}", name,
                               entry.blocked_by.empty() ? "" : ", still waits" + waited_for(records, entry));
        case EventKind::lock_acquired:
            return fmt::format("acquired {}, waited {}{}", name, short_duration(entry.wait_ns),
                               waited_for(records, entry));
        case EventKind::lock_failed:
            return fmt::format("did not get {}, waited {}: {}{}", name, short_duration(entry.wait_ns),
                               std::strerror(entry.error),  // NOLINT(concurrency-mt-unsafe)
                               waited_for(records, entry));
        default:
            return fmt::format("released {}, held {}{}", name, short_duration(entry.hold_ns),
                               entry.reason == "unlock" || entry.reason.empty() ? "" : ", ended by " + entry.reason);
    }
}

std::string diff_text(const Json &diff) {
    const Json &changes = json_at(diff, "changes");
    if (!changes.is_object()) return "state changed";
    std::string out;
    std::size_t told = 0;
    for (const auto &[path, change] : changes.items()) {
        if (told++ == kMostChanges) {
            out += fmt::format(", and {} more", changes.size() - kMostChanges);
            break;
        }
        constexpr std::size_t kMostOfValue = 40;
        out += fmt::format("{}{}: {} -> {}", told == 1 ? "" : ", ", terminal_text(path),
                           terminal_text(shortened(json_dump(json_at(change, "old")), kMostOfValue)),
                           terminal_text(shortened(json_dump(json_at(change, "new")), kMostOfValue)));
    }
    return out.empty() ? "nothing changed" : out;
}

std::string transcript_text(const Json &transcript) {
    const Json &usage = json_at(json_at(transcript, "response"), "usage");
    std::string out = fmt::format("{} {}, {}ms, {} tokens in, {} out", shown(transcript, "provider"),
                                  shown(transcript, "model"), json_number(transcript, "duration_ms"),
                                  shown(usage, "input_tokens"), shown(usage, "output_tokens"));
    const std::string error = shown(transcript, "error");
    if (!error.empty()) out += fmt::format(", failed: {}", error);
    const std::string said = json_text(json_at(transcript, "response"), "content");
    if (!said.empty()) out += fmt::format(": {}", terminal_text(shortened(said)));
    return out;
}

// A document's moment is when it was written, or when it says that it began.
void add_documents(std::vector<Moment> &moments, const std::vector<RecordDocument> &documents, const char *kind,
                   std::string (*text_of)(const Json &)) {
    for (const RecordDocument &document : documents) {
        const Json json = Json::parse(document.text, nullptr, false);
        if (!json.is_object()) continue;
        moments.push_back({parse_utc(json_text(json, "timestamp")).value_or(0), kind, text_of(json)});
    }
}

std::vector<Moment> moments_of(const TraceRecords &records) {
    std::vector<Moment> moments;
    if (records.trace) {
        for (const analysis::RecordedSpan &span : records.trace->spans) {
            std::string text = fmt::format("{} {}", terminal_text(span.name), short_duration(span.duration_ns));
            if (span.status != "ok") text += fmt::format(", {}", terminal_text(span.status));
            if (!span.error.empty()) text += fmt::format(": {}", terminal_text(shortened(span.error)));
            moments.push_back({span.begin_utc_ns, "span", text});
        }
    }
    for (const TimelineEntry &entry : records.locks)
        moments.push_back({entry.utc_ns, "lock", lock_text(records, entry)});
    for (const LogEntry &entry : records.log) {
        std::string text =
            fmt::format("{} {}", terminal_text(entry.level), terminal_text(shortened(entry.message, kMostOfText)));
        if (entry.level != "ERROR" && entry.context.size() > 2) {
            text += fmt::format("  {}", terminal_text(shortened(entry.context, kMostOfText)));
        }
        moments.push_back({parse_utc(entry.timestamp).value_or(0), "log", text});
    }
    add_documents(moments, records.transcripts, "llm", transcript_text);
    add_documents(moments, records.diffs, "diff", diff_text);
    add_documents(moments, records.errors, "error", [](const Json &error) {
        return fmt::format("{}: {}", shown(error, "error_type"), shown(error, "error_message"));
    });
    std::stable_sort(moments.begin(), moments.end(),
                     [](const Moment &a, const Moment &b) { return a.utc_ns < b.utc_ns; });
    return moments;
}

std::string page(const TraceRecords &records) {
    std::string out = fmt::format("trace {}, session {}\n", records.id, terminal_text(records.session.id));
    if (records.trace) {
        const analysis::RecordedTrace &trace = *records.trace;
        std::string command;
        for (const std::string &word : trace.command) command += (command.empty() ? "" : " ") + terminal_text(word);
        out += fmt::format("{} {}, {}, from {}\n", terminal_text(trace.operation), terminal_text(trace.status),
                           short_duration(trace.duration_ns), format_utc(trace.begin_utc_ns));
        if (!command.empty()) out += fmt::format("{} {}: {}\n", terminal_text(trace.process), trace.pid, command);
    }
    for (const RecordDocument &error : records.errors) {
        const auto text = error_text(error.text);
        out += fmt::format("\n{}",
                           text ? *text : fmt::format("{}: {}\n", terminal_text(error.path), text.error().message));
    }
    out += "\nin time order (UTC)\n";
    for (const Moment &moment : moments_of(records)) {
        out += fmt::format("{}  {:<6} {}\n",
                           moment.utc_ns == 0 ? "            " : format_utc(moment.utc_ns).substr(11, 12), moment.kind,
                           moment.text);
    }
    if (records.trace) out += fmt::format("\nspans\n{}", span_tree_text(*records.trace));
    std::string files;
    for (const auto *documents : {&records.errors, &records.trace_files, &records.transcripts, &records.diffs}) {
        for (const RecordDocument &document : *documents) files += fmt::format("  {}\n", terminal_text(document.path));
    }
    if (!files.empty()) out += "\nfiles\n" + files;
    return out;
}

Json documents_json(const std::vector<RecordDocument> &documents) {
    Json list = Json::array();
    for (const RecordDocument &document : documents) {
        Json json = Json::parse(document.text, nullptr, false);
        if (json.is_object()) list.push_back(std::move(json));
    }
    return list;
}

Json lock_json(const TraceRecords &records, const TimelineEntry &entry) {
    Json blocked_by = Json::array();
    for (const analysis::Blocker &blocker : entry.blocked_by) {
        Json who{{"pid", blocker.pid}, {"tid", blocker.tid}, {"process", blocker.process}, {"ns", blocker.ns}};
        if (const auto known = records.holders.find(blocker.entry); known != records.holders.end()) {
            who["trace_id"] = known->second.trace_id;
            who["operation"] = known->second.operation;
            who["since"] = format_utc(known->second.since_utc_ns);
        }
        blocked_by.push_back(std::move(who));
    }
    Json json{{"timestamp", format_utc(entry.utc_ns)},
              {"event", analysis::event_name(entry.kind)},
              {"lock_entry_id", entry.lock_entry_id},
              {"lock", entry.lock},
              {"path", entry.path},
              {"mode", analysis::mode_name(entry.mode)},
              {"pid", entry.pid},
              {"tid", entry.tid},
              {"blocked_by", std::move(blocked_by)}};
    if (entry.kind == EventKind::lock_acquired || entry.kind == EventKind::lock_failed) json["wait_ns"] = entry.wait_ns;
    if (entry.kind == EventKind::lock_released) json["hold_ns"] = entry.hold_ns;
    return json;
}

std::string page_json(const TraceRecords &records) {
    Json json{{"schema", "planloop.trace/1"}, {"trace_id", records.id}, {"session_id", records.session.id}};
    const Json traces = documents_json(records.trace_files);
    json["trace"] = traces.empty() ? Json() : traces.front();
    json["errors"] = documents_json(records.errors);
    json["llm_transcripts"] = documents_json(records.transcripts);
    json["diffs"] = documents_json(records.diffs);
    json["log"] = Json::array();
    for (const LogEntry &entry : records.log) json["log"].push_back(Json::parse(entry.text, nullptr, false));
    json["locks"] = Json::array();
    for (const TimelineEntry &entry : records.locks) json["locks"].push_back(lock_json(records, entry));
    json["timeline"] = Json::array();
    for (const Moment &moment : moments_of(records)) {
        json["timeline"].push_back({{"timestamp", moment.utc_ns == 0 ? Json() : Json(format_utc(moment.utc_ns))},
                                    {"kind", moment.kind},
                                    {"text", moment.text}});
    }
    return json_dump(json) + '\n';
}

}  // namespace

Result<int> run_dev_trace(const Arguments &arguments) {
    const auto found = find_trace(arguments, arguments.operands[0], Wanted::anything);
    if (!found) return found.error();
    const TraceRecords records = records_of(found->session, found->id);
    for (const std::string &note : records.notes) say(note);
    write_out(arguments.has("--json") ? page_json(records) : page(records));
    return kExitDone;
}

}  // namespace planloop::cli
