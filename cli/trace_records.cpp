#include "cli/trace_records.h"

#include <fmt/format.h>

#include <set>
#include <utility>

#include "analysis/render/escape.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/json_lines.h"
#include "cli/record_lookup.h"
#include "cli/trace_view.h"
#include "lockcore/clock.h"
#include "lockcore/record_files.h"

namespace planloop::cli {
namespace {

using analysis::EventKind;
using analysis::TimelineEntry;

void read_documents(std::vector<RecordDocument> &to, TraceRecords &records, const std::string &folder,
                    std::string_view ending) {
    for (const std::string &path : records_of_trace(folder, records.id, ending)) {
        auto text = read_record(path);
        if (text) {
            to.push_back({path, std::move(*text)});
        } else {
            records.notes.push_back(text.error().message);
        }
    }
}

void read_log(TraceRecords &records) {
    const auto count = each_json_line(records.session.log_file(), [&](const JsonLine &line) {
        if (line.trace_id != records.id || line.event.compare(0, 5, "lock_") == 0) return true;
        records.log.push_back(
            {line.timestamp, line.level, line.operation, line.message, line.context, std::string(line.text)});
        return true;
    });
    if (!count) records.notes.push_back(count.error().message);
}

bool pass_over_locks(TraceRecords &records, const analysis::TimelineSink &sink) {
    const auto source = analysis::open_session(records.session);
    if (!source) {
        records.notes.push_back(source.error().message);
        return false;
    }
    const analysis::AnalysisOptions options = options_for(records.session);
    static_cast<void>(analysis::analyse(**source, options, sink));
    return true;
}

void read_locks(TraceRecords &records) {
    std::set<std::uint64_t> in_the_way;
    const bool read = pass_over_locks(records, [&](const TimelineEntry &entry) {
        if (entry.trace_id != records.id) return;
        for (const analysis::Blocker &blocker : entry.blocked_by) in_the_way.insert(blocker.entry);
        records.locks.push_back(entry);
        records.locks.back().call_site = nullptr;  // it lives as long as the source
    });
    in_the_way.erase(0);
    if (!read || in_the_way.empty()) return;
    pass_over_locks(records, [&](const TimelineEntry &entry) {
        if (entry.kind != EventKind::lock_acquired || in_the_way.count(entry.entry) == 0) return;
        records.holders[entry.entry] = {entry.trace_id, entry.operation, entry.process, entry.pid, entry.utc_ns};
    });
}

}  // namespace

TraceRecords records_of(const Session &session, const std::string &id) {
    TraceRecords records;
    records.session = session;
    records.id = id;
    const analysis::SessionRecords all = analysis::read_session_records(session);
    if (const analysis::RecordedTrace *trace = trace_called(all, id)) records.trace = *trace;
    read_documents(records.trace_files, records, traces_dir(session), ".json");
    read_documents(records.errors, records, errors_dir(session), "_error.json");
    read_documents(records.transcripts, records, transcripts_dir(session), "_llm.json");
    read_documents(records.diffs, records, diffs_dir(session), "_diff.json");
    read_log(records);
    read_locks(records);
    return records;
}

std::string holder_text(const TraceRecords &records, const analysis::Blocker &blocker) {
    const auto known = records.holders.find(blocker.entry);
    if (known == records.holders.end()) {
        return blocker.pid == 0 ? "somebody who was not traced"
                                : fmt::format("{} {}", analysis::terminal_text(blocker.process), blocker.pid);
    }
    const HolderOfLock &holder = known->second;
    return fmt::format("{} {} ({}, {}, since {})", analysis::terminal_text(holder.process), holder.pid,
                       analysis::terminal_text(holder.operation), holder.trace_id,
                       format_utc(holder.since_utc_ns).substr(11, 12));
}

}  // namespace planloop::cli
