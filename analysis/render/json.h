// The report as one JSON object, schema planloop.locks/1: what `planloop dev locks --json` prints.
//
// The timeline grows with the events, so it is never held: the sink of analyse() renders each entry with
// append_json(), and the caller writes
//
//     json_before_timeline(report)  entry , entry , …  json_after_timeline(report)
//
// with the entries kept outside memory meanwhile (TimelineSpill). Times are integers in nanoseconds; `t_ns`,
// `since_ns`, `from_ns` and `to_ns` count from `recorded.from`; timestamps are RFC 3339 in UTC. The output is valid
// JSON for any bytes in paths and names. Fields that have no meaning for an event are left out, not null, except
// `to_ns` (null: still in force) and `resolved_by` (null: nothing did).
#ifndef PLANLOOP_ANALYSIS_RENDER_JSON_H
#define PLANLOOP_ANALYSIS_RENDER_JSON_H

#include <string>

#include "analysis/report.h"

namespace planloop::analysis {

void append_json(std::string &out, const TimelineEntry &entry);

// Ends with the timeline's opening bracket.
std::string json_before_timeline(const Report &report);
// Starts with the timeline's closing bracket; ends with a newline.
std::string json_after_timeline(const Report &report);

// Who waits, as one object of schema planloop.waiting/1; `waiting` must be sorted by lock and time.
std::string json_waiting(const Report &report);

}  // namespace planloop::analysis

#endif
