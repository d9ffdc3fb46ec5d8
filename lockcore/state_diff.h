// What an operation changed in a state: the document before and after, and the difference by paths, in
// `diffs/{trace_id}_pre.json`, `_post.json` and
//
//   {trace_id}_diff.json: {"trace_id":"tr_…","operation":"update","timestamp":"…Z","before_file":"tr_…_pre.json",
//                          "after_file":"tr_…_post.json","changes":{"tasks[4].status":{"old":"TODO","new":"DONE"}}}
//
// A path is names joined by dots and numbers in brackets; a name with a dot, bracket or space in it stands as ["a.b"].
// What was not there is null. Elements of a list are compared by their place. All three files are redacted (redact.h).
//
// Nothing is written with PLANLOOP_NO_RECORDING=1 or without the feature tracing (dev_mode.h), or when nothing changed.
// Errors: one line; nothing half-written stays. Threads: no state. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_STATE_DIFF_H
#define PLANLOOP_LOCKCORE_STATE_DIFF_H

#include <string>
#include <string_view>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

// The `changes` object of two JSON documents.
Result<std::string> state_changes(std::string_view before, std::string_view after);

// Gives the path of the diff; empty: not recorded.
Result<std::string> record_state_diff(const Session &session, std::string_view before, std::string_view after);

}  // namespace planloop

#endif
