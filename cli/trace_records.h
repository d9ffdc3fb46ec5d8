// All that one trace id left in a session: spans, error reports, transcripts, diffs, log lines, and its lock events
// with who stood in their way.
//
// Documents are as they are in their files; one that cannot be read is a note. Lock events come from the analysis, so
// they are those of `planloop dev locks`, in any program that ran under that trace id.
//
// Errors: notes. Threads: no state. Memory: by what the trace left; the session is read in two passes, event by event.
#ifndef PLANLOOP_CLI_TRACE_RECORDS_H
#define PLANLOOP_CLI_TRACE_RECORDS_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "analysis/report.h"
#include "analysis/session_records.h"
#include "lockcore/session.h"

namespace planloop::cli {

struct LogEntry {
    std::string timestamp, level, operation, message, context, text;  // text: the whole line
};

// Whose hold stood in the way of a wait.
struct HolderOfLock {
    std::string trace_id, operation, process;
    std::int32_t pid = 0;
    std::int64_t since_utc_ns = 0;
};

struct RecordDocument {
    std::string path, text;
};

struct TraceRecords {
    Session session;
    std::string id;
    std::optional<analysis::RecordedTrace> trace;
    std::vector<RecordDocument> trace_files, errors, transcripts, diffs;
    std::vector<LogEntry> log;                      // without lock events
    std::vector<analysis::TimelineEntry> locks;     // in time order
    std::map<std::uint64_t, HolderOfLock> holders;  // by Blocker::entry
    std::vector<std::string> notes;
};

TraceRecords records_of(const Session &session, const std::string &id);

// "planloop 4711 (update, tr_…)": who stood in the way, as well as is known.
std::string holder_text(const TraceRecords &records, const analysis::Blocker &blocker);

}  // namespace planloop::cli

#endif
