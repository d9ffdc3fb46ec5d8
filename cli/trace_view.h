// A trace as a tree with shares: how long each span took, how much of that was its own, and which one is the
// bottleneck.
//
// A span's own time is what none of its children account for; children of other threads may overlap, then it is 0. The
// bottleneck is the span with the most own time that is not recording itself. Waiting for locks (spans named lock_wait)
// is a part of its own.
//
// Units: ns. Threads: pure functions.
#ifndef PLANLOOP_CLI_TRACE_VIEW_H
#define PLANLOOP_CLI_TRACE_VIEW_H

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "analysis/session_records.h"

namespace planloop::cli {

struct SpanNode {
    const analysis::RecordedSpan *span = nullptr;
    std::size_t depth = 0;
    std::int64_t own_ns = 0;
    std::string path;  // names from the root, joined by '/'
};

struct TraceView {
    std::vector<SpanNode> nodes;  // each behind the one that it lies in, by begin
    std::int64_t total_ns = 0;
    std::int64_t lock_wait_ns = 0;
    std::optional<std::size_t> bottleneck;  // in nodes
};

// Borrows the trace.
TraceView view_of(const analysis::RecordedTrace &trace);

// The tree for people, a line for each span with its share, the bottleneck marked; then what locks cost.
std::string span_tree_text(const analysis::RecordedTrace &trace);

inline double share_of(std::int64_t part_ns, std::int64_t total_ns) {
    return total_ns > 0 ? 100.0 * static_cast<double>(part_ns) / static_cast<double>(total_ns) : 0;
}

// The trace of that id in a session; nullptr: there is none.
const analysis::RecordedTrace *trace_called(const analysis::SessionRecords &records, const std::string &id);

}  // namespace planloop::cli

#endif
