#include "analysis/critical_path.h"

#include <algorithm>

#include "analysis/saturate.h"

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
    std::uint32_t count = 0;
    for (Index at = step; at != kNone && count < kDetail; at = steps_[at].before) newest_[count++] = at;
    Index before = kNone;
    for (std::uint32_t i = count; i-- > 0;) {
        const Index index = steps_.make();
        Step &made = steps_[index];
        made = steps_[newest_[i]];
        made.users = i > 0 ? 1 : 0;  // the next one
        made.before = before;
        made.linked = count - i;
        before = index;
    }
    return before;
}

Index CriticalPaths::add(const Head &who, PathSegment::Kind kind, std::int64_t from_ns, std::int64_t to_ns,
                         std::int64_t sooner_ns, Index lock) {
    Index before = who.step;
    use(before);
    if (before != kNone && steps_[before].linked >= 2 * kDetail) {
        const Index newest = newest_of(before);
        use(newest);
        drop(before);
        before = newest;
    }
    const Index index = steps_.make();
    Step &made = steps_[index];
    made = {kind,    who.image, who.pid,   who.tid, std::min(who.since_ns, from_ns),
            from_ns, to_ns,     sooner_ns, lock,    before};
    made.segments = made.ran() && !made.only_ran() ? 2 : 1;
    made.start_ns = made.ran_since_ns;
    made.waited_ns = sooner_ns;
    if (before != kNone) {
        const Step &previous = steps_[before];
        made.linked = previous.linked + 1;
        made.segments += previous.segments;
        made.start_ns = previous.start_ns;
        add_saturated(made.waited_ns, previous.waited_ns);
    }
    return index;
}

void CriticalPaths::move_to(Head &head, Index step, std::int64_t t_ns) {
    use(step);
    drop(head.step);
    head.step = step;
    head.since_ns = t_ns;
}

Index CriticalPaths::ran_until(const Head &head, std::int64_t t_ns) {
    if (t_ns <= head.since_ns) return head.step;
    return add(head, PathSegment::Kind::ran, t_ns, t_ns, 0, kNone);
}

CriticalPaths::Head *CriticalPaths::find_head(std::uint32_t stream) {
    const Index known = head_of_stream_.find(stream);
    return known == kNone ? nullptr : &heads_[known];
}

CriticalPaths::Head *CriticalPaths::head_of_process(Index process) {
    if (process == kNone) return nullptr;
    if (const auto first = first_.find(model_.table.process(process).pid); first != first_.end())
        if (Head *head = find_head(first->second)) return head;
    Head *found = nullptr;
    for (const Index thread : model_.table.process(process).threads) {
        Head *head = find_head(model_.table.thread(thread).stream);
        if (head == nullptr) continue;
        if (found == nullptr || head->tid == head->pid) found = head;
    }
    return found;
}

void CriticalPaths::forget(std::uint32_t stream) {
    const Index known = head_of_stream_.find(stream);
    if (known == kNone) return;
    drop(heads_[known].step);
    heads_.release(known);
    head_of_stream_.erase(stream);
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
        Index known = head_of_stream_.find(event.thread);
        if (known == kNone) {
            known = heads_.make();
            head_of_stream_.put(event.thread, known);
        }
        drop(heads_[known].step);
        heads_[known] = head;
    } else if (event.kind == EventKind::child_wait_begun || event.kind == EventKind::child_wait_ended) {
        Head *const known = find_head(event.thread);
        if (known == nullptr) return;
        Head &head = *known;
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
    const Head *head = end.stream != 0 ? find_head(end.stream) : nullptr;
    if (head == nullptr) head = head_of_process(model_.table.find_pid(end.pid));
    if (head == nullptr) return;
    Index known = release_of_domain_.find(domain);
    if (known == kNone) {
        known = static_cast<Index>(releases_.size());
        release_of_domain_.put(domain, known);
        releases_.emplace_back();
    }
    Release &release = releases_[known];
    use(head->step);
    drop(release.head.step);
    release.head = *head;
    release.held_since_ns = hold.since_ns;
    release.t_ns = end.t_ns;
    release.first = hold.start;
    release.last = last_byte(hold.start, hold.len);
}

void CriticalPaths::request_done(Index index, const RequestEnd &end) {
    const Request &request = model_.requests[index];
    if (end.outcome != Outcome::acquired || !request.contended) return;
    Head *const known = find_head(request.stream);
    if (known == nullptr) return;
    Head &head = *known;
    const Index found = release_of_domain_.find(request.domain);
    const Release *const last = found != kNone ? &releases_[found] : nullptr;
    const bool freed =
        last != nullptr && last->t_ns >= request.since_ns && last->first <= request.last && request.first <= last->last;
    if (freed) {
        const Head &holder = last->head;
        const std::int64_t since_ns = std::max(last->held_since_ns, holder.since_ns);
        const Index held = add(holder, PathSegment::Kind::held, since_ns, last->t_ns, end.wait_ns, request.lock);
        return move_to(head, held, last->t_ns);
    }
    const std::int64_t since_ns = end.t_ns - end.wait_ns;
    move_to(head, add(head, PathSegment::Kind::waited, since_ns, end.t_ns, end.wait_ns, request.lock), end.t_ns);
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
    const auto tell = [&](const Step &step, PathSegment::Kind kind, std::int64_t from_ns, std::int64_t to_ns) {
        PathSegment segment;
        segment.kind = kind;
        segment.from_ns = from_ns - from_utc_ns;
        segment.to_ns = to_ns - from_utc_ns;
        segment.pid = step.pid;
        segment.tid = step.tid;
        segment.process = model_.source.process(step.image).name;
        if (kind != PathSegment::Kind::ran) {
            segment.sooner_ns = step.sooner_ns;
            segment.lock = model_.locks[step.lock].id;
            segment.path = model_.locks.path(step.lock);
        }
        path.segments.push_back(std::move(segment));
    };
    for (Index at = last_.step; at != kNone && path.segments.size() < kDetail; at = steps_[at].before) {
        const Step &step = steps_[at];
        if (!step.only_ran()) tell(step, step.kind, step.from_ns, step.to_ns);
        if (step.ran() && path.segments.size() < kDetail)
            tell(step, PathSegment::Kind::ran, step.ran_since_ns, step.from_ns);
    }
    path.earlier = last.segments - path.segments.size();
    std::reverse(path.segments.begin(), path.segments.end());
}

}  // namespace planloop::analysis
