#include "analysis/process_order.h"

#include <algorithm>
#include <limits>

namespace planloop::analysis {
namespace {

constexpr std::int64_t kTickNs = 10'000'000;  // USER_HZ is 100 on every architecture that we run on
constexpr int kGenerations = 64;

}  // namespace

Index ProcessOrder::make(std::int32_t pid, Index parent, std::int64_t t_ns) {
    const auto index = static_cast<Index>(nodes_.size());
    Node node;
    node.pid = pid;
    node.parent = parent;
    node.seen_ns = node.changed_ns = t_ns;
    nodes_.push_back(node);
    by_pid_.put(static_cast<std::uint32_t>(pid), index);
    return index;
}

Index ProcessOrder::node_of(std::int32_t pid) {
    const Index known = by_pid_.find(static_cast<std::uint32_t>(pid));
    return known != kNone ? known : make(pid, kNone, 0);
}

std::int64_t ProcessOrder::last_change_ns(std::int32_t pid) {
    return nodes_[node_of(pid)].changed_ns;
}

void ProcessOrder::started(const Event &event) {
    const ProcessInfo &info = source_.process(event.process);
    const std::int32_t pid = info.pid != 0 ? info.pid : event.pid;
    Index index = by_pid_.find(static_cast<std::uint32_t>(pid));
    const bool other = index != kNone && !info.replaced_by_exec &&
                       (nodes_[index].ended_ns >= 0 || (nodes_[index].start_ticks != 0 && info.start_time != 0 &&
                                                        nodes_[index].start_ticks != info.start_time));
    if (index == kNone || other) index = make(pid, kNone, event.t_ns);
    Node &node = nodes_[index];
    if (node.seen_ns == 0) node.seen_ns = event.t_ns;
    if (node.start_ticks == 0) node.start_ticks = info.start_time;
    if (node.parent == kNone && info.parent_pid > 0 && info.parent_pid != pid) {
        const Index parent = node_of(info.parent_pid);
        nodes_[index].parent = parent;
    }
    if (info.start_time == 0) return;
    const std::int64_t boot_ns = event.t_ns - static_cast<std::int64_t>(info.start_time) * kTickNs;
    boot_ns_ = boot_known_ ? std::min(boot_ns_, boot_ns) : boot_ns;
    boot_known_ = true;
}

void ProcessOrder::speak_of(Index child, Index parent) {
    nodes_[child].parent = parent;
    if (nodes_[child].spoken_of) return;
    nodes_[child].spoken_of = true;
    nodes_[child].older_sibling = nodes_[parent].newest_child;
    nodes_[parent].newest_child = child;
}

void ProcessOrder::forked(const Event &event) {
    const Index parent = node_of(event.pid);
    nodes_[parent].changed_ns = event.t_ns;
    if (event.other <= 0) return;
    const auto pid = static_cast<std::int32_t>(event.other);
    Index child = by_pid_.find(static_cast<std::uint32_t>(pid));
    if (child == kNone || nodes_[child].ended_ns >= 0) child = make(pid, parent, event.t_ns);
    speak_of(child, parent);
    nodes_[child].made_ns = event.t_ns;
}

// The child may have been heard of before, and even be over. It has not been waited for, so nobody else has its pid.
void ProcessOrder::child_made(const Event &event) {
    const Index parent = node_of(event.pid);
    nodes_[parent].changed_ns = event.t_ns;
    if (event.other <= 0 || event.other > std::numeric_limits<std::int32_t>::max()) return;
    const auto pid = static_cast<std::int32_t>(event.other);
    Index child = by_pid_.find(static_cast<std::uint32_t>(pid));
    const Index known = child != kNone ? nodes_[child].parent : kNone;
    if (child == kNone || nodes_[child].waited_ns >= 0 ||
        (nodes_[child].ended_ns >= 0 && known != kNone && nodes_[known].pid != event.pid))
        child = make(pid, parent, event.t_ns);
    speak_of(child, parent);
    if (nodes_[child].made_ns < 0) nodes_[child].made_ns = event.t_ns;
}

void ProcessOrder::told_over(Index child, Index parent, std::int64_t t_ns) {
    if (child == kNone || nodes_[child].parent != parent || nodes_[child].waited_ns >= 0) return;
    nodes_[child].waited_ns = t_ns;
    if (nodes_[child].ended_ns < 0) nodes_[child].ended_ns = t_ns;
}

void ProcessOrder::waited(const Event &event) {
    const Index parent = node_of(event.pid);
    nodes_[parent].changed_ns = event.t_ns;
    auto pid = static_cast<std::int64_t>(event.start);  // what the call returned
    if (pid == wire::kNoChildLeft && event.other == -1) {
        for (Index child = nodes_[parent].newest_child; child != kNone; child = nodes_[child].older_sibling)
            told_over(child, parent, event.t_ns);
        nodes_[parent].newest_child = kNone;
        return;
    }
    if (pid == wire::kNoChildLeft) pid = event.other;
    if (pid <= 0 || pid > std::numeric_limits<std::int32_t>::max()) return;
    told_over(by_pid_.find(static_cast<std::uint64_t>(pid)), parent, event.t_ns);
}

void ProcessOrder::event(const Event &event) {
    switch (event.kind) {
        case EventKind::process_forked:
            return forked(event);
        case EventKind::child_made:
            return child_made(event);
        case EventKind::process_started:
            return started(event);
        case EventKind::process_exiting:
        case EventKind::process_ended: {
            const Index index = by_pid_.find(static_cast<std::uint32_t>(event.pid));
            if (index != kNone && nodes_[index].ended_ns < 0) nodes_[index].ended_ns = event.t_ns;
            return;
        }
        case EventKind::child_wait_ended:
            return waited(event);
        default:
            return;
    }
}

// A process may be heard of long after it began, and a parent may speak of it long after it made it. Its start time, to
// a tick, then says when at the latest.
std::int64_t ProcessOrder::born_ns(const Node &node) const {
    std::int64_t born = node.made_ns >= 0 ? node.made_ns : node.seen_ns;
    if (node.made_ns >= 0 && node.seen_ns > 0) born = std::min(born, node.seen_ns);
    if (node.start_ticks == 0 || !boot_known_) return born;
    return std::min(born, boot_ns_ + (static_cast<std::int64_t>(node.start_ticks) + 1) * kTickNs);
}

std::int64_t ProcessOrder::over_ns(const Node &node) const {
    return node.waited_ns >= 0 || node.made_ns >= 0 ? node.waited_ns : node.ended_ns;
}

bool ProcessOrder::before(const Place &one, const Place &other) const {
    Place up = one;
    for (int i = 0; i < kGenerations && up.process != kNone; ++i) {
        Place down = other;
        for (int j = 0; j < kGenerations && down.process != kNone; ++j) {
            if (up.process == down.process) {
                if (i == 0 && j == 0) break;  // two threads of one process
                return up.t_ns <= down.t_ns;
            }
            down = {nodes_[down.process].parent, born_ns(nodes_[down.process])};
        }
        const Node &node = nodes_[up.process];
        const std::int64_t over = over_ns(node);
        if (over < 0) return false;
        up = {node.parent, std::max(over, up.t_ns)};
    }
    return false;
}

}  // namespace planloop::analysis
