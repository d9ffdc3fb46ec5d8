#include "cli/trace_view.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

#include "analysis/render/escape.h"
#include "analysis/render/text.h"

namespace planloop::cli {
namespace {

using analysis::RecordedSpan;
using analysis::RecordedTrace;

constexpr std::size_t kDeepest = 64;

// What recording itself takes is told, but it is nobody's bottleneck.
bool is_of_recording(const std::string &span) {
    return span == "error_report" || span == "record_diff";
}

// Children by their parent's place; kNone: of nobody. A writer without ids gives the parent's name: the last span of
// that name which began before.
class Family {
  public:
    static constexpr std::size_t kNone = ~std::size_t{0};

    explicit Family(const RecordedTrace &trace) : spans_(trace.spans) {
        std::map<std::uint64_t, std::size_t> by_id;
        std::map<std::string, std::size_t> by_name;
        for (std::size_t i = 0; i < spans_.size(); ++i) {
            const RecordedSpan &span = spans_[i];
            std::size_t parent = kNone;
            if (span.parent_id != 0) {
                if (const auto found = by_id.find(span.parent_id); found != by_id.end()) parent = found->second;
            } else if (!span.parent.empty()) {
                if (const auto found = by_name.find(span.parent); found != by_name.end()) parent = found->second;
            }
            children_[parent].push_back(i);
            if (span.id != 0) by_id[span.id] = i;
            by_name[span.name] = i;
        }
        for (auto &[parent, children] : children_) {
            std::stable_sort(children.begin(), children.end(), [&](std::size_t a, std::size_t b) {
                return spans_[a].begin_utc_ns < spans_[b].begin_utc_ns;
            });
        }
    }

    void walk(std::size_t parent, std::size_t depth, const std::string &path, TraceView &view) const {
        const auto found = children_.find(parent);
        if (found == children_.end() || depth > kDeepest) return;
        for (const std::size_t i : found->second) {
            const RecordedSpan &span = spans_[i];
            SpanNode node;
            node.span = &span;
            node.depth = depth;
            node.path = path.empty() ? span.name : path + '/' + span.name;
            node.own_ns = std::max<std::int64_t>(span.duration_ns - of_children(i), 0);
            const std::string own_path = node.path;
            view.nodes.push_back(std::move(node));
            walk(i, depth + 1, own_path, view);
        }
    }

  private:
    std::int64_t of_children(std::size_t parent) const {
        const auto found = children_.find(parent);
        std::int64_t sum = 0;
        if (found == children_.end()) return sum;
        for (const std::size_t i : found->second) sum += spans_[i].duration_ns;
        return sum;
    }

    const std::vector<RecordedSpan> &spans_;
    std::map<std::size_t, std::vector<std::size_t>> children_;
};

}  // namespace

TraceView view_of(const RecordedTrace &trace) {
    TraceView view;
    view.total_ns = trace.duration_ns;
    Family(trace).walk(Family::kNone, 0, "", view);
    for (std::size_t i = 0; i < view.nodes.size(); ++i) {
        const SpanNode &node = view.nodes[i];
        if (node.span->name == "lock_wait") view.lock_wait_ns += node.span->duration_ns;
        if (is_of_recording(node.span->name)) continue;
        if (!view.bottleneck || node.own_ns > view.nodes[*view.bottleneck].own_ns) view.bottleneck = i;
    }
    view.lock_wait_ns = std::max(view.lock_wait_ns, trace.lock_wait_ns);
    return view;
}

std::string span_tree_text(const RecordedTrace &trace) {
    const TraceView view = view_of(trace);
    std::string out;
    for (std::size_t i = 0; i < view.nodes.size(); ++i) {
        const SpanNode &node = view.nodes[i];
        std::string line = fmt::format("{:{}}- {}: {}", "", 2 * node.depth, analysis::terminal_text(node.span->name),
                                       analysis::short_duration(node.span->duration_ns));
        line += fmt::format("{:{}}{:>5.1f}%", "", line.size() < 44 ? 44 - line.size() : 1,
                            share_of(node.span->duration_ns, view.total_ns));
        for (const auto &[key, value] : node.span->metadata)
            line += fmt::format("  {}={}", analysis::terminal_text(key), analysis::terminal_text(value));
        if (node.span->status != "ok") line += fmt::format("  {}", analysis::terminal_text(node.span->status));
        if (view.bottleneck == i) {
            line += fmt::format("  <- BOTTLENECK ({} its own)", analysis::short_duration(node.own_ns));
        }
        out += line + '\n';
    }
    out += fmt::format("waiting for locks: {} of {} ({:.1f}%)\n", analysis::short_duration(view.lock_wait_ns),
                       analysis::short_duration(view.total_ns), share_of(view.lock_wait_ns, view.total_ns));
    if (trace.spans_dropped > 0) out += fmt::format("{} spans more did not fit\n", trace.spans_dropped);
    return out;
}

const RecordedTrace *trace_called(const analysis::SessionRecords &records, const std::string &id) {
    const auto found = std::find_if(records.traces.begin(), records.traces.end(),
                                    [&](const RecordedTrace &trace) { return trace.trace_id == id; });
    return found == records.traces.end() ? nullptr : &*found;
}

}  // namespace planloop::cli
