// The part of culprits.h that knows who waits behind whom: what has to be settled before somebody stops or goes on, and
// whose waits are a part of others'.
#include <algorithm>
#include <utility>

#include "analysis/culprits.h"

namespace planloop::analysis {

bool Culprits::settle_owned(const std::vector<Index> &owned) {
    bool any = false;
    for (const Index at : owned) {
        for (const Index waiter : model_.locks.domain(model_.ranges[at].domain).waiters) {
            Request &request = model_.requests[waiter];
            any = true;
            settle(waiter);
            if (request.bridge && model_.table.process(request.process).settled != epoch_)
                next_to_settle_.push_back(request.process);
        }
    }
    return any;
}

// Whoever is more than kMostSteps away is charged alike before and after.
bool Culprits::settle_behind(Index start) {
    ++epoch_;
    next_to_settle_.assign(1, start);
    bool any = false;
    for (std::uint32_t steps = 0; steps < kMostSteps && !next_to_settle_.empty(); ++steps) {
        to_settle_.clear();
        to_settle_.swap(next_to_settle_);
        while (!to_settle_.empty()) {
            const Index index = to_settle_.back();
            to_settle_.pop_back();
            Process &process = model_.table.process(index);
            if (std::exchange(process.settled, epoch_) == epoch_) continue;
            for_owned(process, [&](const std::vector<Index> &owned) { any |= settle_owned(owned); });
            // A step for both: what is charged to the parent is passed on as the child passes it on.
            if (const Index parent = waiting_parent(process); parent != kNone) to_settle_.push_back(parent);
        }
    }
    return any;
}

template <class Visit>
void Culprits::for_owned(const Process &process, Visit visit) const {
    visit(process.owned);
    for (const Index thread : process.threads) visit(model_.table.thread(thread).owned);
    for (const Descriptor &descriptor : process.descriptors)
        visit(model_.table.description(descriptor.description).owned);
}

// That waits for a child of its: this one, as far as is known.
Index Culprits::waiting_parent(const Process &process) const {
    const Index parent = process.parent_pid > 0 ? model_.table.find_pid(process.parent_pid) : kNone;
    if (parent == kNone) return kNone;
    const std::vector<Index> &threads = model_.table.process(parent).threads;
    const bool waits = std::any_of(threads.begin(), threads.end(),
                                   [&](Index thread) { return model_.table.thread(thread).waits_for_child; });
    return waits ? parent : kNone;
}

// Whether a wait for something that these own is passed on by whatever thread of theirs is stopped. It is not where the
// thread that took it has it and runs: that the others wait for it, too, costs nobody anything.
bool Culprits::passes_on(Index start) const {
    bool passes = false;
    int level = 0;
    for (Index at = start; at != kNone && !passes && level <= kGenerations; ++level) {
        const Process &process = model_.table.process(at);
        for_owned(process, [&](const std::vector<Index> &owned) {
            for (const Index index : owned) {
                const Ranges &ranges = model_.ranges[index];
                if (passes || model_.locks.domain(ranges.domain).waiters.empty()) continue;
                const auto &segments = ranges.map.segments();
                passes = std::any_of(segments.begin(), segments.end(), [&](const RangeMap::Segment &segment) {
                    return !taker_runs(model_.holds[segment.hold]);
                });
            }
        });
        at = waiting_parent(process);
    }
    return passes;
}

bool Culprits::taker_runs(const Hold &hold) const {
    if (!taker_has(hold)) return false;
    const Thread &taker = model_.table.thread(hold.thread);
    return taker.request == kNone && !taker.waits_for_child;
}

void Culprits::forget_holders(const std::vector<Index> &owned) {
    ++epoch_;
    for (const Index at : owned) {
        const Ranges &ranges = model_.ranges[at];
        const std::vector<Index> &waiters = model_.locks.domain(ranges.domain).waiters;
        for (const Index waiter : waiters) {
            Request &request = model_.requests[waiter];
            settle(waiter);
            flush(request);
        }
        for (const RangeMap::Segment &segment : ranges.map.segments()) {
            Hold &hold = model_.holds[segment.hold];
            hold.culprit = kNone;
            // Without the thread that took it, whichever of the others is stopped matters.
            if (!waiters.empty()) model_.for_holders(hold, [&](Index process) { mark_waiting(process); });
        }
    }
}

void Culprits::update_stopped(Request &request) {
    const bool stopped = request.blocking && !request.parked && request.obstacles > 0;
    if (stopped == request.stopped) return;
    if (request.leads != kNone && stopped) {
        to_look_at_.swap(model_.crowds[request.leads].not_looked_at);
        for (const Index member : to_look_at_) look_at(model_.requests[member]);
        to_look_at_.clear();
    } else if (request.leads == kNone && !request.looked) {
        look_at(request);
    }
    request.stopped = stopped;
}

void Culprits::look_at(Request &request) {
    request.looked = true;
    if (settle_behind(request.process) && passes_on(request.process)) mark(request);
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
    model_.table.for_awaited_children(thread, [&](Index child, std::int32_t between) {
        if (between != 0) return;
        for (const Index one : model_.table.process(child).threads) mark_thread(one, level + 1);
    });
}

void Culprits::mark_bridges(const Hold &hold) {
    if (taker_runs(hold)) return;
    model_.for_holders(hold, [&](Index process) { mark_waiting(process); });
}

void Culprits::mark_waiting(Index process) {
    for (const Index thread : model_.table.process(process).threads) mark_thread(thread, 0);
}

}  // namespace planloop::analysis
