// What instrumented operations of a session left in `logs/traces/` and `logs/errors/`, as plain data: spans and errors
// that views join with the lock events by trace id. Written by this project or by planloop's Python programs; fields
// that a writer does not have keep the values below.
//
// Errors: a file that cannot be understood is a note, the rest is read all the same. Threads: pure function. Memory: by
// spans; a file is read whole, one after the other.
#ifndef PLANLOOP_ANALYSIS_SESSION_RECORDS_H
#define PLANLOOP_ANALYSIS_SESSION_RECORDS_H

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lockcore/session.h"

namespace planloop::analysis {

struct RecordedSpan {
    std::string name, parent;   // parent: its name, empty for the outermost
    std::string status = "ok";  // ok, error, unfinished
    std::string error;          // what went wrong
    std::uint64_t id = 0;       // unique in its trace; 0: the writer gives none
    std::uint64_t parent_id = 0;
    std::int64_t begin_utc_ns = 0;
    std::int64_t duration_ns = 0;  // of one that did not end: until the last sign of life
    bool open = false;             // the process died inside
    std::int32_t pid = 0, tid = 0;
    std::vector<std::pair<std::string, std::string>> metadata;  // value: text, or JSON of what is none
};

struct RecordedTrace {
    std::string trace_id, operation, status, process;
    std::vector<std::string> command;
    std::int64_t begin_utc_ns = 0;
    std::int64_t duration_ns = 0;
    std::int32_t pid = 0;
    std::int64_t lock_wait_ns = 0, lock_hold_ns = 0;
    std::uint64_t spans_dropped = 0;
    std::vector<RecordedSpan> spans;  // in the file's order: by begin, the operation itself first
};

struct RecordedError {
    std::string file;  // its name in errors/, without `_error.json`: what `errors show` takes
    std::string trace_id, operation, type, message, function, process;
    std::int64_t utc_ns = 0;
    std::int32_t pid = 0;
};

struct SessionRecords {
    std::vector<RecordedTrace> traces;  // by begin
    std::vector<RecordedError> errors;  // by time
    std::vector<std::string> notes;     // one line for each file that was passed over
};

SessionRecords read_session_records(const Session &session);

}  // namespace planloop::analysis

#endif
