#include "analysis/critical_path.h"

#include <algorithm>

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostExits = 4'096;

}  // namespace

void CriticalPaths::use(Index step) {
    if (step != kNone) ++steps_[step].users;
}

void CriticalPaths::drop(Index step) {
    while (step != kNone && --steps_[step].users == 0) {
        const Index before = steps_[step].before;
        steps_.release(step);
        step = before;
    }
}

// The newest kDetail steps by themselves: older ones stay with whoever still needs them.
Index CriticalPaths::newest_of(Index step) {
    std::vector<Index> newest;
    for (Index at = step; at != kNone && newest.size() < kDetail; at = steps_[at].before) newest.push_back(at);
    Index before = kNone;
    for (std::size_t i = newest.size(); i-- > 0;) {
        const Index made = steps_.make();
        steps_[made] = steps_[newest[i]];
        steps_[made].users = 0;
        steps_[made].before = before;
        steps_[made].linked = static_cast<std::uint32_t>(newest.size() - i);
        use(before);
        before = made;
    }
    return before;
}

Index CriticalPaths::add(Step step, Index before) {
    use(before);
    if (before != kNone && steps_[before].linked >= 2 * kDetail) {
        const Index newest = newest_of(before);
        use(newest);
        drop(before);
        before = newest;
    }
    step.before = before;
    step.start_ns = step.from_ns;
    step.waited_ns = step.sooner_ns;
    if (before != kNone) {
        step.linked = steps_[before].linked + 1;
        step.number = steps_[before].number + 1;
        step.start_ns = steps_[before].start_ns;
        step.waited_ns += steps_[before].waited_ns;
    }
    const Index made = steps_.make();
    steps_[made] = step;
    return made;
}

void CriticalPaths::move_to(Head &head, Index step, std::int64_t t_ns) {
    use(step);
    drop(head.step);
    head.step = step;
    head.since_ns = t_ns;
}

Index CriticalPaths::ran_until(const Head &head, std::int64_t t_ns) {
    if (t_ns <= head.since_ns) return head.step;
    Step ran;
    ran.kind = PathSegment::Kind::ran;
    ran.image = head.image;
    ran.pid = head.pid;
    ran.tid = head.tid;
    ran.from_ns = head.since_ns;
    ran.to_ns = t_ns;
    return add(ran, head.step);
}

CriticalPaths::Head *CriticalPaths::head_of_process(Index process) {
    if (process == kNone) return nullptr;
    Head *found = nullptr;
    if (const auto first = first_.find(model_.table.process(process).pid); first != first_.end()) {
        const auto at = heads_.find(first->second);
        if (at != heads_.end()) return &at->second;
    }
    for (const Index thread : model_.table.process(process).threads) {
        const auto at = heads_.find(model_.table.thread(thread).stream);
        if (at == heads_.end()) continue;
        if (found == nullptr || at->second.tid == at->second.pid) found = &at->second;
    }
    return found;
}

void CriticalPaths::forget(std::uint32_t stream) {
    const auto at = heads_.find(stream);
    if (at == heads_.end()) return;
    drop(at->second.step);
    heads_.erase(at);
}

void CriticalPaths::event(const Event &event) {
    if (event.thread == 0) return;
    if (event.kind == EventKind::process_started) {
        const ProcessInfo &info = model_.source.process(event.process);
        Head head{kNone, event.t_ns, -1, event.process, event.pid, event.tid};
        if (const Head *parent = head_of_process(model_.table.find_image(info.parent_process))) {
            head.step = info.replaced_by_exec ? parent->step : ran_until(*parent, event.t_ns);
            if (info.replaced_by_exec) head.since_ns = parent->since_ns;
        }
        use(head.step);
        if (info.replaced_by_exec && first_.count(event.pid) != 0) forget(first_[event.pid]);
        first_[event.pid] = event.thread;
        Head &known = heads_[event.thread];
        drop(known.step);
        known = head;
    } else if (event.kind == EventKind::child_wait_begun || event.kind == EventKind::child_wait_ended) {
        const auto at = heads_.find(event.thread);
        if (at == heads_.end()) return;
        Head &head = at->second;
        const std::int64_t since_ns = head.child_wait_ns;
        head.child_wait_ns = event.kind == EventKind::child_wait_begun ? event.t_ns : -1;
        if (event.kind == EventKind::child_wait_begun) return;
        const auto ended = exits_.find(static_cast<std::int32_t>(event.start));
        if (ended == exits_.end()) return;
        if (since_ns >= 0 && ended->second.since_ns >= since_ns)
            move_to(head, ended->second.step, ended->second.since_ns);
        drop(ended->second.step);
        exits_.erase(ended);
    }
}

void CriticalPaths::hold_ended(Index index, const HoldEnd &end) {
    const Hold &hold = model_.holds[index];
    const Index domain = model_.locks[hold.lock].domain;
    if (model_.locks.domain(domain).waiters.empty()) return;
    const Head *head = nullptr;
    if (const auto at = heads_.find(end.stream); end.stream != 0 && at != heads_.end()) head = &at->second;
    if (head == nullptr) head = head_of_process(model_.table.find_pid(end.pid));
    if (head == nullptr) return;
    Release &release = releases_[domain];
    use(head->step);
    drop(release.head.step);
    release.head = *head;
    release.held_since_ns = hold.since_ns;
    release.t_ns = end.t_ns;
    release.first = hold.start;
    release.last = last_byte(hold.start, hold.len);
    release.lock = hold.lock;
}

void CriticalPaths::request_done(Index index, const RequestEnd &end) {
    const Request &request = model_.requests[index];
    if (end.outcome != Outcome::acquired || !request.contended) return;
    const auto at = heads_.find(request.stream);
    if (at == heads_.end()) return;
    Head &head = at->second;
    const auto found = releases_.find(request.domain);
    const bool freed = found != releases_.end() && found->second.t_ns >= request.since_ns &&
                       found->second.first <= request.last && request.first <= found->second.last;
    Step step;
    step.lock = request.lock;
    step.sooner_ns = end.wait_ns;
    if (freed) {
        const Release &release = found->second;
        const std::int64_t since_ns = std::max(release.held_since_ns, release.head.since_ns);
        const Index before = ran_until(release.head, since_ns);
        step.kind = PathSegment::Kind::held;
        step.image = release.head.image;
        step.pid = release.head.pid;
        step.tid = release.head.tid;
        step.from_ns = since_ns;
        step.to_ns = release.t_ns;
        move_to(head, add(step, before), release.t_ns);
        return;
    }
    const Index before = ran_until(head, end.t_ns - end.wait_ns);
    step.kind = PathSegment::Kind::waited;
    step.image = head.image;
    step.pid = head.pid;
    step.tid = head.tid;
    step.from_ns = end.t_ns - end.wait_ns;
    step.to_ns = end.t_ns;
    move_to(head, add(step, before), end.t_ns);
}

void CriticalPaths::process_ended(Index index, const ProcessEnd &end) {
    const Process &process = model_.table.process(index);
    if (const Head *head = head_of_process(index)) {
        Head exit = *head;
        exit.step = ran_until(*head, end.t_ns);
        use(exit.step);
        exit.since_ns = std::max(end.t_ns, head->since_ns);
        if (exit.since_ns >= last_.since_ns) {
            use(exit.step);
            drop(last_.step);
            last_ = exit;
        }
        if (process.parent_pid > 0 && model_.table.find_pid(process.parent_pid) != kNone &&
            exits_.size() < kMostExits) {
            use(exit.step);
            Head &known = exits_[process.pid];
            drop(known.step);
            known = exit;
        }
        drop(exit.step);
    }
    for (const Index thread : process.threads) forget(model_.table.thread(thread).stream);
    if (const auto first = first_.find(process.pid); first != first_.end()) {
        forget(first->second);
        first_.erase(first);
    }
}

void CriticalPaths::fill(CriticalPath &path, std::int64_t from_utc_ns) const {
    if (last_.step == kNone) return;
    const Step &last = steps_[last_.step];
    path.waited_ns = last.waited_ns;
    path.total_ns = last.to_ns - last.start_ns;
    for (Index at = last_.step; at != kNone && path.segments.size() < kDetail; at = steps_[at].before) {
        const Step &step = steps_[at];
        PathSegment segment;
        segment.kind = step.kind;
        segment.from_ns = step.from_ns - from_utc_ns;
        segment.to_ns = step.to_ns - from_utc_ns;
        segment.pid = step.pid;
        segment.tid = step.tid;
        segment.process = model_.source.process(step.image).name;
        segment.sooner_ns = step.sooner_ns;
        if (step.lock != kNone) {
            segment.lock = model_.locks[step.lock].id;
            segment.path = model_.locks.path(step.lock);
        }
        path.segments.push_back(std::move(segment));
    }
    path.earlier = last.number - path.segments.size();
    std::reverse(path.segments.begin(), path.segments.end());
}

}  // namespace planloop::analysis
