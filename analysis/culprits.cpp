#include "analysis/culprits.h"

#include <algorithm>
#include <utility>

namespace planloop::analysis {
namespace {

constexpr int kGenerations = 8;  // of processes that wait for their children, one within the other

}  // namespace

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

Index Culprits::culprit_of(Index index) {
    Hold &hold = model_.holds[index];
    if (hold.culprit != kNone) return hold.culprit;
    Entry made{hold.image, hold.image, hold.site, hold.pid, 0};
    const Index process = responsible(hold);
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
    model_.table.for_awaited_children(thread, [&](Index child) {
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
        charge(culprit_of(entered == 0 ? first : path_[entered].via), ns);
        return;
    }
    path_.push_back({next, via});
    request.on_path = static_cast<std::uint32_t>(path_.size());
    pass(next, ns);
    request.on_path = 0;
    path_.pop_back();
}

void Culprits::pass_to(Index index, std::int64_t ns) {
    std::vector<Index> stopped;
    if (++steps_ <= kMostSteps) stopped_behind(model_.holds[index], stopped);
    if (stopped.empty()) {
        charge(culprit_of(index), ns);
        return;
    }
    const auto parts = static_cast<std::int64_t>(stopped.size());
    for (std::int64_t i = 0; i < parts; ++i) {
        const std::int64_t part = ns / parts + (i < ns % parts ? 1 : 0);
        if (part > 0) follow(stopped[static_cast<std::size_t>(i)], index, part);
    }
}

void Culprits::pass(Index index, std::int64_t ns) {
    const Request &request = model_.as_waiter(model_.requests[index]);
    const auto parts = static_cast<std::int64_t>(request.blockers);
    for (std::int64_t i = 0; i < parts; ++i) {
        const std::int64_t part = ns / parts + (i < ns % parts ? 1 : 0);
        if (part == 0) return;
        const Blame &blame = request.blame[static_cast<std::size_t>(i)];
        if (blame.hold == kNone) {
            if (blame.culprit != kNone) charge(blame.culprit, part);
            continue;
        }
        pass_to(blame.hold, part);
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
    Request::Ends ends = Request::Ends::in_branches;
    Index ends_at = kNone;
    for (Index at = index;;) {
        Request &request = model_.requests[at];
        chain_.push_back(at);
        request.on_path = static_cast<std::uint32_t>(chain_.size());
        Index next = kNone, via = kNone;
        if (!next_of(at, next, via)) break;
        if (next == kNone) {
            ends = Request::Ends::at_culprit;
            ends_at = culprit_of(via);
            break;
        }
        const Request &following = model_.requests[next];
        if (following.on_path != 0) {
            while (chain_.size() >= following.on_path) {
                Request &member = model_.requests[chain_.back()];
                member.ends = Request::Ends::in_circle;
                member.ends_epoch = epoch_;
                const bool last = &member == &following;
                member.on_path = 0;
                chain_.pop_back();
                if (last) break;
            }
            if (chain_.empty()) return;
            via = model_.as_waiter(model_.requests[chain_.back()]).blame[0].hold;
            ends = Request::Ends::at_culprit;
            ends_at = culprit_of(via);
            break;
        }
        if (following.ends_epoch == epoch_) {
            ends = following.ends;
            ends_at = following.ends_at;
            if (ends != Request::Ends::in_circle) break;
            ends = Request::Ends::at_culprit;
            ends_at = culprit_of(via);
            break;
        }
        at = next;
    }
    for (const Index one : chain_) {
        Request &request = model_.requests[one];
        request.on_path = 0;
        request.ends = ends;
        request.ends_at = ends_at;
        request.ends_epoch = epoch_;
    }
}

void Culprits::before_change(Index index) {
    ++epoch_;
    settle(index);
    if (model_.requests[index].bridge) settle_behind(model_.requests[index].process);
}

void Culprits::settle(Index index) {
    Request &request = model_.requests[index];
    const std::int64_t ns = model_.now_ns - request.charged_to;
    if (ns <= 0) return;
    request.charged_to = model_.now_ns;
    if (request.blockers == 0) {
        request.gap_ns += ns;
        return;
    }
    // By far the most: one holder, which runs.
    if (request.blockers == 1 && request.blame[0].hold != kNone) {
        Blame &blame = request.blame[0];
        const Hold &hold = model_.holds[blame.hold];
        const Thread *taker = hold.thread == kNone ? nullptr : &model_.table.thread(hold.thread);
        if (taker != nullptr && taker->stream == hold.stream && taker->request == kNone && !taker->waits_for_child &&
            (hold.culprit != kNone || taker_has(hold))) {
            const Index culprit = culprit_of(blame.hold);
            if (request.leads != kNone) return charge(model_.crowds[request.leads], culprit, ns);
            if (blame.charged_ns == 0) blame.culprit = culprit;
            if (blame.culprit == culprit) {
                blame.charged_ns += ns;
                return;
            }
        }
    }
    flush(request);
    origin_ = &request;
    if (request.ends_epoch != epoch_) resolve(index);
    if (request.ends == Request::Ends::at_culprit) {
        charge(request.ends_at, ns);
    } else if (request.ends == Request::Ends::in_circle) {
        charge(culprit_of(request.blame[0].hold), ns);
    } else {
        steps_ = 0;
        path_.assign(1, {index, kNone});
        request.on_path = 1;
        pass(index, ns);
        request.on_path = 0;
    }
    if (request.blockers == 1 && request.blame[0].hold != kNone)
        request.blame[0].culprit = culprit_of(request.blame[0].hold);
}

bool Culprits::settle_owned(const std::vector<Index> &owned) {
    bool any = false;
    for (const Index at : owned) {
        for (const Index waiter : model_.locks.domain(model_.ranges[at].domain).waiters) {
            Request &request = model_.requests[waiter];
            any = true;
            settle(waiter);
            if (!request.bridge) continue;
            Process &process = model_.table.process(request.process);
            if (process.settled == epoch_) continue;
            process.settled = epoch_;
            to_settle_.push_back(request.process);
        }
    }
    return any;
}

bool Culprits::settle_behind(Index start) {
    ++epoch_;
    to_settle_.assign(1, start);
    model_.table.process(start).settled = epoch_;
    bool any = false;
    while (!to_settle_.empty()) {
        const Index index = to_settle_.back();
        to_settle_.pop_back();
        const Process &process = model_.table.process(index);
        bool found = settle_owned(process.owned);
        for (const Index thread : process.threads) found |= settle_owned(model_.table.thread(thread).owned);
        for (const Descriptor &descriptor : process.descriptors)
            found |= settle_owned(model_.table.description(descriptor.description).owned);
        any |= found;
        const Index parent = process.parent_pid > 0 ? model_.table.find_pid(process.parent_pid) : kNone;
        if (parent == kNone) continue;
        Process &above = model_.table.process(parent);
        const bool waits = std::any_of(above.threads.begin(), above.threads.end(),
                                       [&](Index thread) { return model_.table.thread(thread).waits_for_child; });
        if (!waits || above.settled == epoch_) continue;
        above.settled = epoch_;
        to_settle_.push_back(parent);
    }
    return any;
}

void Culprits::forget_holders(const std::vector<Index> &owned) {
    ++epoch_;
    for (const Index at : owned) {
        const Ranges &ranges = model_.ranges[at];
        for (const Index waiter : model_.locks.domain(ranges.domain).waiters) {
            Request &request = model_.requests[waiter];
            settle(waiter);
            flush(request);
        }
        for (const RangeMap::Segment &segment : ranges.map.segments()) model_.holds[segment.hold].culprit = kNone;
    }
}

void Culprits::update_stopped(Request &request) {
    const bool stopped = request.blocking && !request.parked && request.obstacles > 0;
    if (stopped == request.stopped) return;
    if (request.leads != kNone && stopped) {
        for (const Index member : std::exchange(model_.crowds[request.leads].not_looked_at, {}))
            look_at(model_.requests[member]);
    } else if (request.leads == kNone && !request.looked) {
        look_at(request);
    }
    request.stopped = stopped;
}

void Culprits::look_at(Request &request) {
    request.looked = true;
    if (settle_behind(request.process)) mark(request);
    model_.locks[request.lock].queue.change(model_.now_ns, 1);
}

void Culprits::mark(Request &request) {
    request.bridge = true;
    if (request.crowd != kNone)
        bridges_in_crowds_.push_back(
            model_.crowds[request.crowd].members[model_.crowds[request.crowd].place_of(request.number)].request);
}

// Also those that are not blocked at this moment: they may be again.
void Culprits::mark_thread(Index index, int level) {
    const Thread &thread = model_.table.thread(index);
    for (Index request = thread.request; request != kNone; request = model_.requests[request].outer)
        mark(model_.requests[request]);
    if (!thread.waits_for_child || level == kGenerations) return;
    model_.table.for_awaited_children(thread, [&](Index child) {
        for (const Index one : model_.table.process(child).threads) mark_thread(one, level + 1);
    });
}

void Culprits::mark_bridges(const Hold &hold) {
    if (hold.thread != kNone) {
        const Thread &taker = model_.table.thread(hold.thread);
        if (taker.stream == hold.stream && taker.request == kNone && !taker.waits_for_child) return;
    }
    model_.for_holders(hold, [&](Index process) { mark_waiting(process); });
}

void Culprits::mark_waiting(Index process) {
    for (const Index thread : model_.table.process(process).threads) mark_thread(thread, 0);
}

}  // namespace planloop::analysis
