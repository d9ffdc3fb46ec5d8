#include "analysis/culprits.h"

#include <algorithm>
#include <utility>

namespace planloop::analysis {

// Whether it is still the thread that took the lock which decides when it lets go.
bool Culprits::taker_has(const Hold &hold) const {
    if (hold.thread == kNone) return false;
    const Thread &thread = model_.table.thread(hold.thread);
    if (thread.stream != hold.stream || thread.process == kNone) return false;
    if (owner_kind(model_.locks[hold.lock].family) != wire::Owner::description) return true;
    return model_.table.shares(thread.process, hold.owner);
}

Index Culprits::responsible(const Hold &hold) const {
    if (taker_has(hold)) return model_.table.thread(hold.thread).process;
    Index first = kNone;
    model_.for_holders(hold, [&](Index process) {
        if (first == kNone) first = process;
    });
    return first;
}

// Where the call site is not known, the program stands for it.
Culprits::SiteKey Culprits::site_key(const Entry &entry) const {
    return {entry.site, entry.site != 0 ? std::string() : model_.source.process(entry.taker).name};
}

Index Culprits::find_culprit(Index index, Index process) {
    Hold &hold = model_.holds[index];
    Entry made{hold.image, hold.image, hold.site, hold.pid, 0};
    if (process != kNone && model_.table.process(process).pid != hold.pid) {
        made.image = model_.table.process(process).name_image;
        made.pid = model_.table.process(process).pid;
    }
    Index &recent = recent_[(made.image ^ made.site << 4) % recent_.size()];
    if (recent < entries_.size() && entries_[recent].image == made.image && entries_[recent].taker == made.taker &&
        entries_[recent].site == made.site) {
        hold.culprit = recent;
        return recent;
    }
    const auto next = static_cast<Index>(entries_.size());
    const auto [at, added] = by_name_.try_emplace({made.image, made.taker, made.site}, next);
    if (added) {
        const ProcessInfo &who = model_.source.process(made.image);
        made.process = processes_.try_emplace({made.pid, who.start_time}, groups_.size()).first->second;
        if (made.process == groups_.size()) groups_.emplace_back();
        made.operation = operations_.try_emplace(who.operation, groups_.size()).first->second;
        if (made.operation == groups_.size()) groups_.emplace_back();
        made.call_site = sites_.try_emplace(site_key(made), groups_.size()).first->second;
        if (made.call_site == groups_.size()) groups_.emplace_back();
        entries_.push_back(made);
    }
    hold.culprit = recent = at->second;
    return hold.culprit;
}

void Culprits::add_stopped(Index index, int level, std::vector<Index> &out) const {
    const Thread &thread = model_.table.thread(index);
    if (thread.request != kNone && model_.as_waiter(model_.requests[thread.request]).stopped) {
        out.push_back(thread.request);
        return;
    }
    if (!thread.waits_for_child || level == kGenerations) return;
    model_.table.for_awaited_children(thread, [&](Index child, std::int32_t between) {
        if (between != 0) return;
        for (const Index one : model_.table.process(child).threads) add_stopped(one, level + 1, out);
    });
}

// The open calls that keep whoever has the hold from going on.
void Culprits::stopped_behind(const Hold &hold, std::vector<Index> &out) const {
    if (taker_has(hold)) {
        const Thread &thread = model_.table.thread(hold.thread);
        if (thread.request != kNone || thread.waits_for_child) add_stopped(hold.thread, 0, out);
        return;
    }
    const Index process = responsible(hold);
    if (process == kNone) return;
    const std::vector<Index> &threads = model_.table.process(process).threads;
    const bool all = std::all_of(threads.begin(), threads.end(), [&](Index index) {
        const Thread &thread = model_.table.thread(index);
        return thread.waits_for_child ||
               (thread.request != kNone && model_.as_waiter(model_.requests[thread.request]).stopped);
    });
    if (!all) return;
    for (const Index thread : threads) add_stopped(thread, 0, out);
}

void Culprits::charge(Index culprit, std::int64_t ns) {
    Request &origin = *origin_;
    if (origin.leads != kNone) return charge(model_.crowds[origin.leads], culprit, ns);
    add_charge(origin, culprit, ns);
    if (origin.charges.size() >= origin.compact_at) {
        compact(origin);
        origin.compact_at = std::max<std::size_t>(32, 2 * origin.charges.size());
    }
}

void Culprits::follow(Index next, Index via, std::int64_t ns) {
    Request &request = model_.requests[next];
    if (request.on_path != 0) {  // a circle, entered by the hold that led to its first request; through the origin: by
                                 // the one that the origin waits for
        const std::uint32_t entered = request.on_path - 1;
        const Index first = path_.size() > 1 ? path_[1].via : via;
        parts_.push_back({entered == 0 ? first : path_[entered].via, kNone, ns});
        return;
    }
    path_.push_back({next, via});
    request.on_path = static_cast<std::uint32_t>(path_.size());
    pass(next, ns);
    request.on_path = 0;
    path_.pop_back();
}

void Culprits::pass_to(Index index, std::int64_t ns) {
    if (++steps_ > kMostSteps) return;
    std::vector<Index> stopped;
    stopped_behind(model_.holds[index], stopped);
    if (stopped.empty()) {
        parts_.push_back({index, kNone, ns});
        return;
    }
    const auto parts = static_cast<std::int64_t>(stopped.size());
    for (std::int64_t i = 0; i < parts; ++i)
        follow(stopped[static_cast<std::size_t>(i)], index, ns / parts + (i < ns % parts ? 1 : 0));
}

// Goes also where no nanosecond is left to be passed on: how far it is must not depend on that.
void Culprits::pass(Index index, std::int64_t ns) {
    const Request &request = model_.as_waiter(model_.requests[index]);
    const auto parts = static_cast<std::int64_t>(request.blockers);
    for (std::int64_t i = 0; i < parts; ++i) {
        const std::int64_t part = ns / parts + (i < ns % parts ? 1 : 0);
        const Blame &blame = request.blame[static_cast<std::size_t>(i)];
        if (blame.hold != kNone)
            pass_to(blame.hold, part);
        else if (blame.culprit != kNone)
            parts_.push_back({kNone, blame.culprit, part});
    }
}

// Among those that stand in the way of the origin, and whoever these wait for.
void Culprits::divide(Index origin, std::int64_t ns) {
    parts_.clear();
    steps_ = 0;
    path_.assign(1, {origin, kNone});
    model_.requests[origin].on_path = 1;
    pass(origin, ns);
    model_.requests[origin].on_path = 0;
    if (steps_ > kMostSteps) {
        parts_.clear();
        const Request &request = model_.requests[origin];
        const auto parts = static_cast<std::int64_t>(request.blockers);
        for (std::int64_t i = 0; i < parts; ++i) {
            const Blame &blame = request.blame[static_cast<std::size_t>(i)];
            parts_.push_back({blame.hold, blame.culprit, ns / parts + (i < ns % parts ? 1 : 0)});
        }
    }
    for (const Part &part : parts_) {
        const Index culprit = part.hold != kNone ? culprit_of(part.hold) : part.culprit;
        if (part.ns > 0 && culprit != kNone) charge(culprit, part.ns);
    }
}

// The only request that the only holder in the way of this one is stopped in; kNone: it runs. False: there are several.
bool Culprits::next_of(Index index, Index &next, Index &via) const {
    const Request &request = model_.as_waiter(model_.requests[index]);
    next = kNone;
    if (request.blockers != 1 || request.blame[0].hold == kNone) return false;
    via = request.blame[0].hold;
    std::vector<Index> stopped;
    stopped_behind(model_.holds[via], stopped);
    if (stopped.size() > 1) return false;
    if (!stopped.empty()) next = stopped[0];
    return true;
}

// Follows a chain without branches to its end, and notes it with each request on the way: while nothing changes, the
// next one that comes along need not follow it again.
void Culprits::resolve(Index index) {
    chain_.clear();
    Request::Ends ends = Request::Ends::at_culprit;
    Index ends_at = kNone;
    std::uint32_t after = 0;  // how far what follows the chain goes on
    for (Index at = index;;) {
        Request &request = model_.requests[at];
        chain_.push_back(at);
        request.on_path = static_cast<std::uint32_t>(chain_.size());
        Index next = kNone, via = kNone;
        if (!next_of(at, next, via)) {
            ends = Request::Ends::in_branches;
            break;
        }
        if (next == kNone) {
            ends_at = via;
            break;
        }
        const Request &following = model_.requests[next];
        if (following.on_path != 0) {
            close_circle(following.on_path - 1, after);
            if (chain_.empty()) return;
            ends_at = model_.as_waiter(model_.requests[chain_.back()]).blame[0].hold;
            break;
        }
        if (following.ends_epoch == epoch_) {
            after = following.ends_after;
            ends = following.ends;
            ends_at = following.ends_at;
            if (ends != Request::Ends::at_first) break;
            ends = Request::Ends::at_culprit;
            ends_at = via;
            break;
        }
        if (chain_.size() == std::size_t{2} * kMostSteps) {
            after = kMostSteps;
            for (; chain_.size() > kMostSteps; chain_.pop_back()) model_.requests[chain_.back()].on_path = 0;
            break;
        }
        at = next;
    }
    for (; !chain_.empty(); chain_.pop_back()) {
        Request &request = model_.requests[chain_.back()];
        request.on_path = 0;
        after = std::min(after + 1, kMostSteps + 1);
        note_end(request, after > kMostSteps ? Request::Ends::at_first : ends, ends_at, after);
    }
}

void Culprits::note_end(Request &request, Request::Ends ends, Index ends_at, std::uint32_t after) const {
    request.ends = ends;
    request.ends_at = ends_at;
    request.ends_after = after;
    request.ends_epoch = epoch_;
}

// Takes off the chain what is in the circle that begins at this place of it.
void Culprits::close_circle(std::size_t begin, std::uint32_t &length) {
    length = static_cast<std::uint32_t>(chain_.size() - begin);
    for (; chain_.size() > begin; chain_.pop_back()) {
        Request &member = model_.requests[chain_.back()];
        member.on_path = 0;
        note_end(member, Request::Ends::at_first, kNone, length);
    }
}

void Culprits::settle_for_good() {
    ++epoch_;
    for (Index lock = 0; lock < model_.locks.size(); ++lock)
        for (const Index waiter : model_.locks.domain(model_.locks[lock].domain).waiters) settle(waiter);
    settled_for_good_ = true;
}

void Culprits::before_change(Index index) {
    if (settled_for_good_) return;
    ++epoch_;
    settle(index);
    if (model_.requests[index].bridge) settle_behind(model_.requests[index].process);
}

[[gnu::noinline]] void Culprits::settle_blocked(Index index, std::int64_t ns) {
    Request &request = model_.requests[index];
    // By far the most: one holder, which runs.
    if (request.blockers == 1 && request.blame[0].hold != kNone) {
        Blame &blame = request.blame[0];
        const Hold &hold = model_.holds[blame.hold];
        const Thread *taker = hold.thread == kNone ? nullptr : &model_.table.thread(hold.thread);
        if (taker != nullptr && taker->stream == hold.stream && taker->request == kNone && !taker->waits_for_child &&
            (hold.culprit != kNone || taker_has(hold))) {
            const Index culprit = hold.culprit != kNone ? hold.culprit : find_culprit(blame.hold, taker->process);
            if (request.leads != kNone) return charge(model_.crowds[request.leads], culprit, ns);
            if (blame.charged_ns == 0) blame.culprit = culprit;
            if (blame.culprit == culprit) {
                blame.charged_ns += ns;
                return;
            }
        }
    }
    settle_chain(index, ns);
}

// The same where the holder does not run, or there are several.
void Culprits::settle_chain(Index index, std::int64_t ns) {
    Request &request = model_.requests[index];
    flush(request);
    origin_ = &request;
    if (request.ends_epoch != epoch_) resolve(index);
    if (request.ends == Request::Ends::at_culprit) {
        charge(culprit_of(request.ends_at), ns);
    } else if (request.ends == Request::Ends::at_first) {
        charge(culprit_of(request.blame[0].hold), ns);
    } else {
        divide(index, ns);
    }
    if (request.blockers == 1 && request.blame[0].hold != kNone)
        request.blame[0].culprit = culprit_of(request.blame[0].hold);
}

}  // namespace planloop::analysis
