// planloop dev perf, planloop dev perf show ID: how long operations took, and what one of them spent its time on.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "analysis/render/escape.h"
#include "analysis/render/text.h"
#include "analysis/session_records.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/record_lookup.h"
#include "cli/trace_view.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"

namespace planloop::cli {
namespace {

using analysis::RecordedTrace;
using analysis::short_duration;
using analysis::terminal_text;

constexpr std::size_t kMostShown = 20;

struct Sum {
    std::uint64_t count = 0;
    std::int64_t total_ns = 0, max_ns = 0, lock_wait_ns = 0;
    std::uint64_t failed = 0;
};

std::map<std::string, Sum> by_operation(const std::vector<RecordedTrace> &traces) {
    std::map<std::string, Sum> sums;
    for (const RecordedTrace &trace : traces) {
        Sum &sum = sums[trace.operation];
        ++sum.count;
        sum.total_ns += trace.duration_ns;
        sum.max_ns = std::max(sum.max_ns, trace.duration_ns);
        sum.lock_wait_ns += trace.lock_wait_ns;
        if (trace.status != "ok") ++sum.failed;
    }
    return sums;
}

void append_text_field(std::string &out, std::string_view key, std::string_view value) {
    out += fmt::format("\"{}\":", key);
    append_json_string(out, value);
}
void append_ms_field(std::string &out, std::string_view key, std::int64_t ns) {
    out += fmt::format(",\"{}\":", key);
    append_milliseconds(out, ns);
}

std::string list_json(const Session &session, const std::vector<RecordedTrace> &traces) {
    std::string out = "{\"schema\":\"planloop.perf/1\",";
    append_text_field(out, "session", session.id);
    out += ",\"operations\":[";
    std::string_view comma;
    for (const auto &[operation, sum] : by_operation(traces)) {
        out += fmt::format("{}{{", comma);
        append_text_field(out, "operation", operation);
        out += fmt::format(",\"count\":{},\"not_ok\":{}", sum.count, sum.failed);
        append_ms_field(out, "total_ms", sum.total_ns);
        append_ms_field(out, "max_ms", sum.max_ns);
        append_ms_field(out, "lock_wait_ms", sum.lock_wait_ns);
        out += '}';
        comma = ",";
    }
    out += "],\"traces\":[";
    comma = "";
    for (const RecordedTrace &trace : traces) {
        out += fmt::format("{}\n{{", comma);
        append_text_field(out, "trace_id", trace.trace_id);
        out += ',';
        append_text_field(out, "operation", trace.operation);
        out += ',';
        append_text_field(out, "status", trace.status);
        out += ',';
        append_text_field(out, "started_at", format_utc(trace.begin_utc_ns));
        append_ms_field(out, "duration_ms", trace.duration_ns);
        append_ms_field(out, "lock_wait_ms", trace.lock_wait_ns);
        out += fmt::format(",\"spans\":{}}}", trace.spans.size());
        comma = ",";
    }
    return out + "\n]}\n";
}

std::string list_text(const Session &session, std::vector<RecordedTrace> traces) {
    if (traces.empty()) return fmt::format("no traces in session {}\n", terminal_text(session.id));
    std::string out = fmt::format("{:<20} {:>6} {:>8} {:>8} {:>8} {:>10} {:>7}\n", "OPERATION", "COUNT", "TOTAL",
                                  "MEAN", "MAX", "LOCK WAIT", "NOT OK");
    for (const auto &[operation, sum] : by_operation(traces)) {
        out += fmt::format("{:<20} {:>6} {:>8} {:>8} {:>8} {:>10} {:>7}\n", terminal_text(operation), sum.count,
                           short_duration(sum.total_ns),
                           short_duration(sum.total_ns / static_cast<std::int64_t>(sum.count)),
                           short_duration(sum.max_ns), short_duration(sum.lock_wait_ns), sum.failed);
    }
    std::stable_sort(traces.begin(), traces.end(),
                     [](const RecordedTrace &a, const RecordedTrace &b) { return a.duration_ns > b.duration_ns; });
    out += traces.size() > kMostShown ? fmt::format("\nthe slowest {} of {}\n", kMostShown, traces.size()) : "\n";
    traces.resize(std::min(traces.size(), kMostShown));
    for (const RecordedTrace &trace : traces) {
        out +=
            fmt::format("{:<32} {:<20} {:<10} {:>8}  waited for locks {:>7}  {}\n", trace.trace_id,
                        terminal_text(trace.operation), terminal_text(trace.status), short_duration(trace.duration_ns),
                        short_duration(trace.lock_wait_ns), format_utc(trace.begin_utc_ns).substr(0, 19));
    }
    return out;
}

std::string show_json(const RecordedTrace &trace, const TraceView &view) {
    std::string out = "{\"schema\":\"planloop.spans/1\",";
    append_text_field(out, "trace_id", trace.trace_id);
    out += ',';
    append_text_field(out, "operation", trace.operation);
    out += ',';
    append_text_field(out, "status", trace.status);
    append_ms_field(out, "duration_ms", view.total_ns);
    append_ms_field(out, "lock_wait_ms", view.lock_wait_ns);
    out += fmt::format(",\"lock_wait_share\":{:.1f},\"bottleneck\":", share_of(view.lock_wait_ns, view.total_ns));
    if (view.bottleneck) {
        append_json_string(out, view.nodes[*view.bottleneck].path);
    } else {
        out += "null";
    }
    out += ",\"spans\":[";
    for (std::size_t i = 0; i < view.nodes.size(); ++i) {
        const SpanNode &node = view.nodes[i];
        out += i == 0 ? "\n{" : ",\n{";
        append_text_field(out, "name", node.span->name);
        out += ',';
        append_text_field(out, "path", node.path);
        out += fmt::format(",\"depth\":{}", node.depth);
        append_ms_field(out, "duration_ms", node.span->duration_ns);
        append_ms_field(out, "own_ms", node.own_ns);
        out += fmt::format(",\"share\":{:.1f},\"bottleneck\":{},", share_of(node.span->duration_ns, view.total_ns),
                           view.bottleneck == i);
        append_text_field(out, "status", node.span->status);
        out += '}';
    }
    return out + "\n]}\n";
}

}  // namespace

Result<int> run_dev_perf(const Arguments &arguments) {
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    analysis::SessionRecords records = analysis::read_session_records(*session);
    for (const std::string &note : records.notes) say(note);
    write_out(arguments.has("--json") ? list_json(*session, records.traces)
                                      : list_text(*session, std::move(records.traces)));
    return kExitDone;
}

Result<int> run_dev_perf_show(const Arguments &arguments) {
    const auto found = find_trace(arguments, arguments.operands[0], Wanted::anything);
    if (!found) return found.error();
    const analysis::SessionRecords records = analysis::read_session_records(found->session);
    const RecordedTrace *trace = trace_called(records, found->id);
    if (trace == nullptr)
        return Error{fmt::format("trace {} has no spans; see planloop dev trace {}", found->id, found->id)};
    if (arguments.has("--json")) {
        write_out(show_json(*trace, view_of(*trace)));
        return kExitDone;
    }
    write_out(fmt::format("{}  {}  {}  {}\n{}", trace->trace_id, terminal_text(trace->operation),
                          short_duration(trace->duration_ns), terminal_text(trace->status), span_tree_text(*trace)));
    return kExitDone;
}

}  // namespace planloop::cli
