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
// A finding as an object that may stand among such entries: `timestamp` and `event`, which is "finding", then as in the
// report.
void append_json(std::string &out, const Finding &finding, const Report &report);

// Ends with the timeline's opening bracket.
std::string json_before_timeline(const Report &report);
// Starts with the timeline's closing bracket; ends with a newline.
std::string json_after_timeline(const Report &report);

// Beside the first fields of schema planloop.locks/1, which programs read, stand: `blame` {waits, waited_ns,
// unknown_ns, handover_ns, processes, call_sites, operations}, where each table's caused_ns with unknown_ns and
// handover_ns make waited_ns exactly; `call_sites`, statistics by place; `critical_path` {total_ns, waited_ns, earlier,
// segments}; `quantile_error`, the share of itself by which a quantile may be off; of a lock `waited_ns` and `queue`
// {max, mean, from_ns, step_ns, steps as [max, mean]}; of a distribution mean, p90 and count. Of a report that tells
// only a part: `shown`, the options that chose it, and `findings_not_shown`.

// Who waits, as one object of schema planloop.waiting/1; `waiting` must be sorted by lock and time.
std::string json_waiting(const Report &report);

}  // namespace planloop::analysis

#endif
