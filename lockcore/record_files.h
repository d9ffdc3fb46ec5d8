// The folders and files of a session's `logs/`, and how a record gets there: whole or not at all.
//
//   planloop.jsonl                      every line an event (jsonl.h)
//   errors/{trace_id}_error.json        error_context.h
//   errors/{trace_id}_state.json        the session's state.json at that time, redacted
//   errors/.crash/                      crash_capture.h: raw, until somebody reads it
//   traces/{trace_id}.json              span.h
//   traces/.open/                       span_journal.h: operations that run, or died
//   llm_transcripts/{trace_id}_llm.json transcript.h
//   diffs/{trace_id}_pre.json _post.json _diff.json   state_diff.h
//   performance.jsonl                   performance_log.h
//
// A second record of the same kind under one trace id (a command and its children share one) goes beside the first:
// `{trace_id}_2_error.json`, with `{trace_id}_2_state.json`; a number is taken by one record only. A trace is one file:
// traces of one id are joined (span.h).
//
// Folders are made 0700, files 0600. A record is written under a name that starts with a dot, then given its own: who
// reads sees all of it or nothing, also after a kill or on a full disk. It is not brought to the disk (fsync(2)): it
// outlives its process, not the machine. What could not be written is removed.
//
// Errors: one line that names the file. Threads and processes: any number. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_RECORD_FILES_H
#define PLANLOOP_LOCKCORE_RECORD_FILES_H

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

inline std::string errors_dir(const Session &session) {
    return session.logs_dir() + "/errors";
}
inline std::string crash_dir(const Session &session) {
    return session.logs_dir() + "/errors/.crash";
}
inline std::string traces_dir(const Session &session) {
    return session.logs_dir() + "/traces";
}
inline std::string open_traces_dir(const Session &session) {
    return session.logs_dir() + "/traces/.open";
}
inline std::string transcripts_dir(const Session &session) {
    return session.logs_dir() + "/llm_transcripts";
}
inline std::string diffs_dir(const Session &session) {
    return session.logs_dir() + "/diffs";
}
inline std::string performance_file(const Session &session) {
    return session.logs_dir() + "/performance.jsonl";
}

// Makes it and what is above it.
Result<void> make_record_folder(const std::string &path);

struct RecordPart {
    std::string_view ending;  // "_error.json"
    std::string_view content;
    bool names_stem = false;  // every "{stem}" in the content becomes the name that was free
};
// Writes parts that belong together as `{folder}/{stem}{ending}`, the first part last, so that whoever sees it sees the
// others. `stem` is the trace id, with `_2` and so on when another record has that name. Returns the stem.
Result<std::string> write_record(const std::string &folder, std::string_view trace_id,
                                 std::span<const RecordPart> parts);

// Content in place of what is there, if anything.
Result<void> replace_record(const std::string &path, std::string_view content);

// The whole file; missing, not a file, and larger than `most` are errors.
Result<std::string> read_record(const std::string &path, std::size_t most = std::size_t{64} << 20);

// Names in the folder that end so and do not start with a dot, sorted. A missing folder is empty.
std::vector<std::string> list_records(const std::string &folder, std::string_view ending);

}  // namespace planloop

#endif
