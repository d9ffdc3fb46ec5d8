#include "analysis/waits.h"

#include <algorithm>
#include <cerrno>
#include <tuple>
#include <utility>

namespace planloop::analysis {

Index Waits::begin(const Event &event, Index process, Index thread, Index lock, Index owner) {
    const std::uint64_t last = last_byte(event.start, event.len);
    const bool polls = model_.table.thread(thread).polls != Thread::kNoPolls;
    Index index = polls ? resume_poll(event, thread, lock, last) : kNone;
    const bool resumed = index != kNone;
    if (!resumed) index = model_.requests.make();
    Request &request = model_.requests[index];
    if (!resumed) {
        request.since_ns = event.t_ns;
        request.lock = lock;
        request.domain = model_.locks[lock].domain;
        request.family = event.family;
        request.mode = event.mode;
        request.first = event.start;
        request.last = last;
        request.start = event.start;
        request.len = event.len;
        request.process = process;
        request.thread = thread;
        request.image = event.speaker != 0 ? event.speaker : event.process;
        request.stream = model_.table.thread(thread).stream;
        request.pid = event.pid;
        request.tid = event.tid;
        request.blocking = (event.flags & wire::kBlocking) != 0;
    }
    request.parked = false;
    if (resumed && request.owner != owner) rebase(index, owner, event.t_ns);
    request.owner = owner;
    request.call_ns = event.t_ns;
    request.entry = event.entry;
    request.flags = event.flags;
    request.fd = event.fd;
    request.caller = event.caller;
    request.site = event.site;
    request.outer = model_.table.thread(thread).request;
    if (request.outer != kNone && model_.requests[request.outer].bridge) culprits_.settle_behind(process);
    model_.table.thread(thread).request = index;
    if (!resumed && owner != kNone) enlist(index);
    return index;
}

Index Waits::resume_poll(const Event &event, Index thread, Index lock, std::uint64_t last) {
    auto &polls = model_.table.thread(thread).polls;
    for (Index &slot : polls) {
        if (slot == kNone) continue;
        const Request &poll = model_.requests[slot];
        if (poll.lock != lock || poll.first != event.start || poll.last != last) continue;
        const Index found = slot;
        if (poll.mode != event.mode || (event.flags & wire::kBlocking) != 0 ||
            event.t_ns - poll.tried_ns > kPollGapNs) {
            expire(found);
            return kNone;
        }
        slot = kNone;
        ++model_.requests[found].tries;
        return found;
    }
    return kNone;
}

Index Waits::find(Index thread, std::uint64_t entry) const {
    Index index = model_.table.thread(thread).request;
    while (index != kNone && model_.requests[index].entry != entry) index = model_.requests[index].outer;
    return index;
}

void Waits::enlist(Index index) {
    Request &request = model_.requests[index];
    request.waiting = true;
    bool made = false;
    if (const Index leader_index = crowds_.leader_for(request, made); leader_index != kNone) {
        Request &leader = model_.requests[leader_index];
        if (made) {
            model_.for_conflicts(leader, [&](Index hold) { add_obstacle(leader, hold, request.call_ns); });
            culprits_.update_stopped(leader);
        }
        if (crowds_.join(index, leader_index)) return;
    }
    model_.add_waiter(index);
    request.charged_to = model_.now_ns;
    model_.for_conflicts(request, [&](Index hold) { add_obstacle(request, hold, request.call_ns); });
    culprits_.update_stopped(request);
}

// Pollers that open the file anew for each try come back as another owner.
void Waits::rebase(Index index, Index owner, std::int64_t now_ns) {
    Request &request = model_.requests[index];
    culprits_.before_change(index);
    for (std::size_t i = 0; i < request.blockers; ++i) {
        request.blame[i].ns += now_ns - request.blame[i].since_ns;
        request.blame[i].until_ns = now_ns;
        request.blame[i].active = 0;
    }
    request.blockers = 0;
    request.obstacles = 0;
    request.owner = owner;
    model_.for_conflicts(request, [&](Index hold) { add_obstacle(request, hold, now_ns); });
    culprits_.update_stopped(request);
}

// Looks only among those that stand in the way now, who are few; who did before may be many. A thread that comes back
// gets a second entry, and entries are merged when they have doubled.
void Waits::add_obstacle(Request &request, Index index, std::int64_t now_ns) {
    const Hold &hold = model_.holds[index];
    ++request.obstacles;
    culprits_.mark_bridges(hold);
    for (std::size_t i = 0; i < request.blockers; ++i) {
        if (request.blame[i].pid != hold.pid || request.blame[i].tid != hold.tid) continue;
        ++request.blame[i].active;
        request.blame[i].entry = hold.entry;
        if (request.blame[i].hold == kNone) request.blame[i].hold = index;
        return;
    }
    if (request.blame.size() >= request.merge_at) {
        merge(request);
        request.merge_at = std::max<std::size_t>(32, 2 * request.blame.size());
    }
    request.blame.push_back({hold.pid, hold.tid, hold.image, 1, now_ns, 0, hold.entry, 0, index});
    std::swap(request.blame[request.blockers++], request.blame.back());
}

void Waits::remove_obstacle(Request &request, Index index, std::int64_t now_ns) {
    const Hold &hold = model_.holds[index];
    for (std::size_t i = 0; i < request.blockers; ++i) {
        Blame &blame = request.blame[i];
        if (blame.pid != hold.pid || blame.tid != hold.tid) continue;
        --request.obstacles;
        if (--blame.active > 0) {
            if (blame.hold == index) blame.hold = other_hold(request, index);
            return;
        }
        blame.ns += now_ns - blame.since_ns;
        blame.entry = hold.entry;
        blame.until_ns = now_ns;
        blame.hold = kNone;
        std::swap(blame, request.blame[--request.blockers]);
        if (request.leads != kNone) {
            crowds_.add_piece(model_.crowds[request.leads], request.blame.back(), now_ns);
            request.blame.pop_back();
        }
        return;
    }
}

// Another hold of the same thread that stands in the way.
Index Waits::other_hold(const Request &request, Index than) const {
    const Hold &hold = model_.holds[than];
    Index found = kNone;
    model_.for_conflicts(request, [&](Index index) {
        const Hold &other = model_.holds[index];
        if (index != than && other.pid == hold.pid && other.tid == hold.tid) found = index;
    });
    return found;
}

// One entry for each thread, those that are active first.
void Waits::merge(Request &request) {
    Culprits::flush(request);
    std::vector<Blame> &blame = request.blame;
    if (blame.size() < 2) return;
    std::sort(blame.begin(), blame.end(), [](const Blame &a, const Blame &b) {
        return std::tie(a.pid, a.tid, b.active, a.since_ns) < std::tie(b.pid, b.tid, a.active, b.since_ns);
    });
    std::size_t kept = 0;
    for (std::size_t i = 1; i < blame.size(); ++i) {
        if (blame[i].pid != blame[kept].pid || blame[i].tid != blame[kept].tid) {
            blame[++kept] = blame[i];
            continue;
        }
        blame[kept].ns += blame[i].ns;
        if (blame[kept].active == 0 && blame[i].until_ns > blame[kept].until_ns) {
            blame[kept].entry = blame[i].entry;
            blame[kept].until_ns = blame[i].until_ns;
        }
    }
    blame.resize(kept + 1);
    std::stable_partition(blame.begin(), blame.end(), [](const Blame &one) { return one.active > 0; });
}

void Waits::part_crowds() {
    crowds_.part_all();
    for (Index lock = 0; lock < model_.locks.size(); ++lock)
        for (const Index waiter : model_.locks.domain(model_.locks[lock].domain).waiters)
            merge(model_.requests[waiter]);
}

bool Waits::in_the_way(const Request &request, const Ranges &owner, const RangeMap::Segment &segment) const {
    if (request.owner == owner.owner && request.family == owner.family) return false;
    return segment.first <= request.last && request.first <= segment.last &&
           exclude(request.mode, model_.holds[segment.hold].mode);
}

void Waits::before_change(Index index) {
    const Request &request = model_.requests[index];
    if (request.crowd == kNone) {
        culprits_.before_change(index);
        if (request.leads != kNone) crowds_.advance(request.leads);
        return;
    }
    before_change(model_.crowds[request.crowd].leader);
    if (request.bridge) culprits_.settle_behind(request.process);
}

void Waits::obstruct(const Ranges &owner, const RangeMap::Segment &segment) {
    const std::vector<Index> &waiters = model_.locks.domain(owner.domain).waiters;
    for (std::size_t i = 0; i < waiters.size();) {
        const Index crowd = model_.requests[waiters[i]].leads;
        const bool parted = crowd != kNone && crowds_.part_owned_by(crowd, owner.family, owner.owner);
        i = parted ? 0 : i + 1;  // who parted is among them now, and the leader may be no more
    }
    for (const Index waiter : waiters) {
        Request &request = model_.requests[waiter];
        if (!in_the_way(request, owner, segment)) continue;
        before_change(waiter);
        add_obstacle(request, segment.hold, model_.now_ns);
        culprits_.update_stopped(request);
    }
}

void Waits::clear_way(const Ranges &owner, const RangeMap::Segment &segment) {
    for (const Index waiter : model_.locks.domain(owner.domain).waiters) {
        Request &request = model_.requests[waiter];
        if (!in_the_way(request, owner, segment)) continue;
        before_change(waiter);
        remove_obstacle(request, segment.hold, model_.now_ns);
        culprits_.update_stopped(request);
    }
}

void Waits::settle(Index index, std::int64_t now_ns) {
    Request &request = model_.requests[index];
    for (std::size_t i = 0; i < request.blockers; ++i) {
        request.blame[i].ns += now_ns - request.blame[i].since_ns;
        request.blame[i].since_ns = now_ns;
    }
}

// A call that was granted and is not stamped yet looks like an open one.
bool Waits::other_may_have_it(const Request &request) const {
    bool found = false;
    model_.for_waiters(request.domain, [&](Index index) {
        const Request &other = model_.requests[index];
        if (&other == &request || other.parked) return;
        if (other.owner == request.owner && other.family == request.family) return;
        found =
            found || (other.first <= request.last && request.first <= other.last && exclude(other.mode, request.mode));
    });
    return found;
}

// A member's call came back. Who stood in its way need not be known when it got the lock soon and nobody asks; then
// this is all: true.
bool Waits::conclude_in_crowd(Index index, const RequestEnd &end) {
    Request &request = model_.requests[index];
    const bool asked = model_.tells_blame || end.outcome != Outcome::acquired || end.wait_ns >= model_.long_wait_ns;
    if (!asked && crowds_.was_blocked(request)) {
        request.contended = true;
        return true;
    }
    if (asked) crowds_.tell(request, request.blame);
    return false;
}

void Waits::conclude(Index index, const RequestEnd &end) {
    Request &request = model_.requests[index];
    if (request.waiting) before_change(index);
    if (request.crowd != kNone && conclude_in_crowd(index, end)) return;
    settle(index, end.t_ns);
    merge(request);
    std::vector<Blame> &blame = request.blame;
    const bool refused = end.outcome == Outcome::failed && (end.error == EAGAIN || end.error == EACCES);
    if (!refused) {
        blame.erase(
            std::remove_if(blame.begin(), blame.end(), [](const Blame &one) { return one.ns <= 0 && one.active == 0; }),
            blame.end());
    }
    if (end.outcome == Outcome::acquired)
        blame.erase(std::remove_if(blame.begin(), blame.end(), [](const Blame &one) { return one.ns <= 0; }),
                    blame.end());
    if (blame.empty() && request.waiting) {
        const bool polled = refused || request.tries > 1;
        const bool slow = request.blocking && end.wait_ns >= kUntracedWaitNs;
        if ((slow && !polled) || (polled && !other_may_have_it(request)))
            blame.push_back({0, 0, 0, 0, end.t_ns, end.wait_ns, 0, 0});
    }
    std::sort(blame.begin(), blame.end(), [](const Blame &a, const Blame &b) {
        if (a.ns != b.ns) return a.ns > b.ns;
        return a.pid != b.pid ? a.pid < b.pid : a.tid < b.tid;
    });
    request.contended = !blame.empty();
}

void Waits::count(Request &request, const WaitEnd &end) {
    model_.locks[request.lock].wait.add(end.wait_ns);
    if (!request.parked || request.tries > 1) culprits_.commit(request, end.wait_ns, request.parked);
    observer_.waited(request, end);
}

void Waits::park(Index index, std::int64_t now_ns) {
    Request &request = model_.requests[index];
    Thread &thread = model_.table.thread(request.thread);
    if (thread.request == index) thread.request = request.outer;
    request.outer = kNone;
    request.parked = true;
    request.tried_ns = now_ns;
    Culprits::keep(request);
    // A blocker that was only presumed is presumed again, if need be, when the series ends.
    request.blame.erase(
        std::remove_if(request.blame.begin(), request.blame.end(), [](const Blame &one) { return one.pid == 0; }),
        request.blame.end());
    // Its description may be closed and its Index given away before the next try.
    std::stable_partition(request.blame.begin(), request.blame.end(), [](const Blame &one) { return one.active > 0; });
    if (request.family == wire::Family::flock) rebase(index, kNone, now_ns);
    if (thread.polls.back() != kNone) expire(thread.polls.back());
    std::move_backward(thread.polls.begin(), thread.polls.end() - 1, thread.polls.end());
    thread.polls.front() = index;
}

void Waits::withdraw(Index index) {
    Request &request = model_.requests[index];
    if (request.bridge) culprits_.settle_behind(request.process);
    Thread &thread = model_.table.thread(request.thread);
    for (Index *link = &thread.request; *link != kNone; link = &model_.requests[*link].outer) {
        if (*link != index) continue;
        *link = request.outer;
        break;
    }
    if (request.parked) std::replace(thread.polls.begin(), thread.polls.end(), index, kNone);
    if (request.looked) model_.locks[request.lock].queue.change(model_.now_ns, -1);
    if (request.crowd != kNone) {
        crowds_.remove(index);
    } else if (request.waiting) {
        model_.remove_waiter(index);
    }
}

void Waits::expire(Index index) {
    Request &poll = model_.requests[index];
    count(poll, {poll.tried_ns, poll.tried_ns - poll.since_ns, Outcome::failed, EAGAIN});
    end(index);
}

void Waits::before_process_changes(Index index) {
    if (!culprits_.settle_behind(index)) return;
    const Process &process = model_.table.process(index);
    culprits_.forget_holders(process.owned);
    for (const Descriptor &descriptor : process.descriptors) before_descriptor_closes(descriptor.description);
}

void Waits::expire_polls(Index thread) {
    const auto polls = model_.table.thread(thread).polls;
    for (const Index poll : polls)
        if (poll != kNone) expire(poll);
}

}  // namespace planloop::analysis
