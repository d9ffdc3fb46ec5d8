// Which session and which trace a command about recorded operations means. What died since the last look is brought in
// first: traces of operations that were killed (lockcore/trace_file.h) and crashes (lockcore/crash_capture.h).
//
// An id may be shortened to a prefix that only one trace has. Without --session an id is looked for in all sessions; a
// list is of the current session, else of the one last recorded into.
//
// Errors: one line; several that fit are all named, where none fits the nearest is. Threads: no state.
#ifndef PLANLOOP_CLI_RECORD_LOOKUP_H
#define PLANLOOP_CLI_RECORD_LOOKUP_H

#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop::cli {

struct FoundTrace {
    Session session;
    std::string id;
};

enum class Wanted : bool { error, anything };

// For commands that list.
Result<Session> session_of_records(const Arguments &arguments);

// For commands about one: `id` as typed. Wanted::error: only ids that have an error report.
Result<FoundTrace> find_trace(const Arguments &arguments, std::string_view id, Wanted wanted);

// Paths of one trace's records in a folder: `<id>ENDING`, `<id>_2ENDING` …, in that order.
std::vector<std::string> records_of_trace(const std::string &folder, std::string_view id, std::string_view ending);

// The id in `tr_…_2_error.json`, without its number and ending.
std::string_view trace_id_in_name(std::string_view name);

}  // namespace planloop::cli

#endif
