#include "analysis/timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace planloop::analysis {

Timeline::Line Timeline::line_for(const Request &request, EventKind kind, std::int64_t t_ns) const {
    Line line;
    line.kind = kind;
    line.family = request.family;
    line.mode = request.mode;
    line.image = request.image;
    line.pid = request.pid;
    line.tid = request.tid;
    line.lock = request.lock;
    line.t_ns = t_ns;
    line.entry = request.entry;
    line.blocking = request.blocking;
    line.start = request.start;
    line.len = request.len;
    line.site = request.site;
    line.flags = request.flags;
    return line;
}

void Timeline::requested(const Request &request) {
    ++lines_;
    if (is_spared(model_.now_ns)) return;
    Line line = line_for(request, EventKind::lock_requested, model_.now_ns);
    const Request &waiter = model_.as_waiter(request);
    if (waiter.obstacles > 0) {
        for (const Blame &blame : waiter.blame)
            if (blame.active > 0) line.blame.push_back({blame.pid, blame.tid, blame.image, 0, 0, 0, blame.entry, 0});
    }
    add(std::move(line));
}

void Timeline::request_done(Index index, const RequestEnd &end) {
    if (end.outcome == Outcome::abandoned) return;
    ++lines_;
    if (is_spared(end.t_ns)) return;
    const Request &request = model_.requests[index];
    const bool acquired = end.outcome == Outcome::acquired;
    Line line = line_for(request, acquired ? EventKind::lock_acquired : EventKind::lock_failed, end.t_ns);
    line.wait_ns = end.wait_ns;
    line.error = end.error;
    line.tries = request.tries;
    line.owned = request.owner != kNone;
    for (const Blame &blame : request.blame) {
        // A failed try tells who was in its way, not who was in the way of the tries before it.
        if (!acquired && !request.blocking && blame.active == 0 && blame.pid != 0) continue;
        line.blame.push_back(blame);
        line.blame.back().ns = std::min(blame.ns, end.wait_ns);
    }
    add(std::move(line));
}

void Timeline::waited(const Request &request, const WaitEnd &end) {
    if (!vain_waits_ || end.outcome == Outcome::acquired) return;
    Line line = line_for(request, EventKind::lock_failed, end.t_ns);
    line.wait_ns = end.wait_ns;
    line.error = end.error;
    line.tries = request.tries;
    line.blame = request.blame;
    for (Blame &blame : line.blame) blame.ns = std::min(blame.ns, end.wait_ns);
    hand(line, vain_waits_);
}

void Timeline::hold_ended(Index index, const HoldEnd &end) {
    ++lines_;
    if (!sink_ || (end.reason != Reason::undecided && is_spared(end.t_ns))) return;
    const Hold &hold = model_.holds[index];
    Line line;
    line.kind = EventKind::lock_released;
    line.family = model_.locks[hold.lock].family;
    line.mode = hold.mode;
    line.reason = end.reason;
    line.certainty = end.certainty;
    line.image = end.image;
    line.pid = end.pid;
    line.tid = end.tid;
    line.lock = hold.lock;
    line.t_ns = end.t_ns;
    line.hold_ns = end.t_ns - hold.since_ns;
    line.entry = hold.entry;
    line.start = hold.start;
    line.len = hold.len;
    line.site = end.site;
    line.flags = hold.flags;
    line.awaited = !model_.locks.domain(model_.locks[hold.lock].domain).waiters.empty();
    if (end.reason == Reason::undecided) line.ticket = end.ticket;
    add(std::move(line));
}

void Timeline::decided(std::uint64_t ticket, Reason reason, EndCertainty certainty) {
    // Late decisions are about recent lines: look from the end.
    const auto at =
        std::find_if(waiting_.rbegin(), waiting_.rend(), [&](const Line &line) { return line.ticket == ticket; });
    if (at == waiting_.rend()) return;
    at->ticket = 0;
    at->reason = reason;
    at->certainty = certainty;
    emit_certain();
}

void Timeline::add(Line &&line) {
    if (waiting_.empty() && line.ticket == 0) {
        emit(line);
        return;
    }
    waiting_.push_back(std::move(line));
    const std::int64_t now_ns = waiting_.back().t_ns;
    while (!waiting_.empty() && (waiting_.size() > kMostWaiting ||
                                 (longest_delay_ns_ > 0 && now_ns - waiting_.front().t_ns > longest_delay_ns_))) {
        guess(waiting_.front());
        emit_certain();
    }
}

// The end of a conversion's old lock is certain in time, and conversions mostly succeed. A hold that another one's
// acquisition proved over is lost as long as nobody's death explains it.
void Timeline::guess(Line &line) {
    if (line.ticket == 0) return;
    line.ticket = 0;
    line.reason = line.certainty == EndCertainty::exact ? Reason::converted : Reason::lost;
}

void Timeline::emit_certain() {
    while (!waiting_.empty() && waiting_.front().ticket == 0) {
        emit(waiting_.front());
        waiting_.pop_front();
    }
}

void Timeline::flush() {
    for (Line &line : waiting_) guess(line);
    emit_certain();
}

void Timeline::hand(const Line &line, const TimelineSink &sink) {
    const ProcessInfo &who = model_.source.process(line.image);
    const Lock &lock = model_.locks[line.lock];
    entry_.t_ns = line.t_ns - from_utc_ns_;
    entry_.utc_ns = line.t_ns;
    entry_.kind = line.kind;
    entry_.trace_id = who.trace_id;
    entry_.operation = who.operation;
    entry_.lock_entry_id.clear();
    fmt::format_to(std::back_inserter(entry_.lock_entry_id), "{:016x}", line.entry);
    entry_.entry = line.entry;
    entry_.pid = line.pid;
    entry_.tid = line.tid;
    entry_.process = who.name;
    entry_.command_line = who.command_line;
    entry_.lock = lock.id;
    entry_.path = model_.locks.path(line.lock);
    entry_.family = line.family;
    entry_.mode = line.mode;
    entry_.start = line.start;
    entry_.len = line.len;
    entry_.wait_ns = line.wait_ns;
    entry_.hold_ns = line.hold_ns;
    entry_.reason = line.kind == EventKind::lock_released ? reason_name(line.reason) : "";
    entry_.certainty = line.certainty;
    entry_.error = line.error;
    entry_.tries = line.tries;
    entry_.call_site = call_sites_ && line.site != 0 ? &model_.source.call_site(line.site) : nullptr;
    entry_.recorded_itself = (line.flags & wire::kInstrumented) != 0;
    entry_.blocking = line.blocking;
    entry_.owned = line.owned;
    entry_.awaited = line.awaited;
    entry_.blocked_by.resize(line.blame.size());
    for (std::size_t i = 0; i < line.blame.size(); ++i) {
        const Blame &blame = line.blame[i];
        const ProcessInfo &blocker = model_.source.process(blame.pid == 0 ? 0 : blame.image);
        entry_.blocked_by[i] = {blame.pid,        blame.tid,   blame.ns,      blocker.name,
                                blocker.trace_id, blame.entry, blame.until_ns};
    }
    sink(entry_);
}

}  // namespace planloop::analysis
