// Metrics, one a line, in `performance.jsonl`:
//
//   {"timestamp":"…Z","metric":"command.duration","value":12.5,
//    "tags":{"command":"update","trace_id":"tr_…","unit":"ms","status":"ok"}}
//
// An OperationRecording (span.h) writes at its end command.duration (ms), memory.rss_mb (the most that the process has
// had resident, MB of 10^6 bytes), and lock.wait_ms and lock.hold_ms: the sums over the locks of the operation, written
// when it used one. llm.latency (ms) comes from transcript.h.
//
// Nothing is written with PLANLOOP_NO_RECORDING=1 or without the feature profiling (dev_mode.h). The lines of one call
// are one write(2), after whatever other programs wrote.
// Errors: one line. Threads: safe. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_PERFORMANCE_LOG_H
#define PLANLOOP_LOCKCORE_PERFORMANCE_LOG_H

#include <cstdint>
#include <initializer_list>
#include <span>
#include <string_view>
#include <utility>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

struct Metric {
    std::string_view name;
    double value = 0;
    std::string_view unit;  // ms, mb
};
using MetricTag = std::pair<std::string_view, std::string_view>;

// The thread's trace id and operation (as `command`) are tags of all of them; `tags` come on top.
Result<void> record_metrics(const Session &session, std::span<const Metric> metrics,
                            std::initializer_list<MetricTag> tags = {});

}  // namespace planloop

#endif
