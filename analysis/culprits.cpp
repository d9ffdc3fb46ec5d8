#include "analysis/culprits.h"

#include <algorithm>
#include <utility>

namespace planloop::analysis {
namespace {

constexpr int kGenerations = 8;  // of processes that wait for their children, one within the other

void add_charge(Request &request, Index culprit, std::int64_t ns) {
    if (!request.charges.empty() && request.charges.back().culprit == culprit) {
        request.charges.back().ns += ns;
        return;
    }
    request.charges.push_back({culprit, ns, 0, false});
}

// Keys of a crowd: a culprit's index, or this and a group's.
constexpr std::uint64_t kGroupKey = std::uint64_t{1} << 32;

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
    hold.culprit = at->second;
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

// Every member waited for so long, whoever came or went was preceded by a settlement.
void Culprits::charge(Crowd &crowd, Index culprit, std::int64_t ns) {
    if (crowd.members.empty()) return;
    crowd.charged_ns += ns;
    crowd.latest = culprit;
    Entry &entry = entries_[culprit];
    entry.caused_ns += ns * static_cast<std::int64_t>(crowd.members.size());
    if (crowd.newly_charged(culprit) == 0) return;
    groups_[entry.process].waits += crowd.newly_charged(kGroupKey | entry.process);
    groups_[entry.operation].waits += crowd.newly_charged(kGroupKey | entry.operation);
    groups_[entry.call_site].waits += crowd.newly_charged(kGroupKey | entry.call_site);
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
            hold.culprit != kNone) {
            if (request.leads != kNone) return charge(model_.crowds[request.leads], hold.culprit, ns);
            if (hold.culprit == blame.culprit) {
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

void Culprits::flush(Request &request) {
    for (Blame &blame : request.blame) {
        if (blame.charged_ns == 0) continue;
        add_charge(request, blame.culprit, std::exchange(blame.charged_ns, 0));
    }
}

void Culprits::compact(Request &request) {
    std::vector<Charge> &charges = request.charges;
    if (charges.size() < 2) return;
    std::sort(charges.begin(), charges.end(), [](const Charge &a, const Charge &b) { return a.culprit < b.culprit; });
    std::size_t kept = 0;
    for (std::size_t i = 1; i < charges.size(); ++i) {
        if (charges[i].culprit == charges[kept].culprit) {
            charges[kept].ns += charges[i].ns;
            charges[kept].kept_ns += charges[i].kept_ns;
            charges[kept].counted = charges[kept].counted || charges[i].counted;
        } else {
            charges[++kept] = charges[i];
        }
    }
    charges.resize(kept + 1);
}

void Culprits::keep(Request &request) {
    flush(request);
    for (Charge &charge : request.charges) charge.kept_ns = charge.ns;
    request.kept_gap_ns = request.gap_ns;
}

void Culprits::carry(Request &request, const Crowd &crowd) const {
    request.carried_ns = crowd.charged_ns - request.charged_base_ns;
    request.carried_to = crowd.latest;
    for (std::size_t place = 0; place < crowd.keys.size(); ++place)
        if (crowd.keys[place] < kGroupKey && crowd.up_to[place] >= request.number)
            request.charges.push_back({static_cast<Index>(crowd.keys[place]), 0, 0, true});
}

// Of what the request is charged with; what is among the sums already, from its last culprit. Returns how much it was.
std::int64_t Culprits::take_back(Request &request, std::int64_t ns) {
    const auto most = std::max_element(request.charges.begin(), request.charges.end(),
                                       [](const Charge &a, const Charge &b) { return a.ns < b.ns; });
    if (most != request.charges.end() && most->ns > 0) {
        const std::int64_t less = std::min(ns, most->ns);
        most->ns -= less;
        return less;
    }
    entries_[request.carried_to].caused_ns -= ns;
    return ns;
}

void Culprits::commit(Request &request, std::int64_t wait_ns, bool given_up) {
    if (request.crowd != kNone) {
        request.carried_ns = model_.crowds[request.crowd].charged_ns - request.charged_base_ns;
        request.carried_to = model_.crowds[request.crowd].latest;
    }
    if (wait_ns <= 0 && request.carried_ns == 0) return;
    if (given_up) {
        for (Charge &charge : request.charges) charge.ns = charge.kept_ns;
        request.gap_ns = request.kept_gap_ns;
    } else {
        flush(request);
    }
    compact(request);
    std::int64_t charged = request.carried_ns;
    for (const Charge &charge : request.charges) charged += charge.ns;
    const bool nobody_known = charged == 0;
    if (nobody_known && (given_up || request.blame.empty() || request.blame[0].pid != 0)) return;
    ++waits_;
    waited_ns_ += wait_ns;
    model_.locks[request.lock].waited_ns += wait_ns;
    if (nobody_known) {
        unknown_ns_ += wait_ns;
        return;
    }
    // Stamps of one call are turned into nanoseconds each by itself, so a wait may be off by some from its parts.
    std::int64_t gap = wait_ns - charged;
    while (gap < 0) gap += take_back(request, -gap);
    handover_ns_ += gap;
    for (const Charge &charge : request.charges) {
        if (!charge.counted) continue;
        const Entry &entry = entries_[charge.culprit];
        for (const Index at : {entry.process, entry.operation, entry.call_site}) groups_[at].counted = waits_;
    }
    for (const Charge &charge : request.charges) {
        if (charge.ns == 0) continue;
        Entry &entry = entries_[charge.culprit];
        entry.caused_ns += charge.ns;
        if (charge.counted) continue;
        for (const Index at : {entry.process, entry.operation, entry.call_site}) {
            if (groups_[at].counted == waits_) continue;
            groups_[at].counted = waits_;
            ++groups_[at].waits;
        }
    }
}

namespace {

// Sorts, and makes one row of what is beyond the bound.
void finish_table(std::vector<Culprit> &rows) {
    const auto worse = [](const Culprit &a, const Culprit &b) {
        if (a.caused_ns != b.caused_ns) return a.caused_ns > b.caused_ns;
        return std::tie(a.operation, a.process, a.pid, a.number) < std::tie(b.operation, b.process, b.pid, b.number);
    };
    std::sort(rows.begin(), rows.end(), worse);
    if (rows.size() <= Culprits::kMostRows) return;
    Culprit others;
    others.process = others.operation = others.site = "others";
    for (std::size_t i = Culprits::kMostRows - 1; i < rows.size(); ++i) {
        others.caused_ns += rows[i].caused_ns;
        others.waits += rows[i].waits;
    }
    rows.resize(Culprits::kMostRows - 1);
    rows.push_back(std::move(others));
}

// One row for each key.
template <class Key>
class Rows {
  public:
    Culprit &operator()(const Key &key) {
        const auto [at, added] = place_.try_emplace(key, rows_.size());
        if (added) rows_.emplace_back();
        return rows_[at->second];
    }
    void finish(std::vector<Culprit> &out) {
        finish_table(rows_);
        out = std::move(rows_);
    }

  private:
    std::map<Key, std::size_t> place_;
    std::vector<Culprit> rows_;
};

}  // namespace

void Culprits::fill(BlameTables &tables, std::size_t named_call_sites) const {
    tables.waited_ns = waited_ns_;
    tables.unknown_ns = unknown_ns_;
    tables.handover_ns = handover_ns_;
    tables.waits = waits_;
    Rows<std::pair<std::int32_t, std::uint64_t>> processes;
    Rows<std::string> operations;
    Rows<SiteKey> sites;
    for (const Entry &entry : entries_) {
        const ProcessInfo &who = model_.source.process(entry.image);
        const ProcessInfo &taker = model_.source.process(entry.taker);
        Culprit &process = processes({entry.pid, who.start_time});
        process.pid = entry.pid;
        process.process = who.name;
        process.command_line = who.command_line;
        Culprit &operation = operations(who.operation);
        operation.operation = who.operation;
        Culprit &site = sites(site_key(entry));
        site.process = taker.name;
        site.number = entry.site;
        for (Culprit *row : {&process, &operation, &site}) row->caused_ns += entry.caused_ns;
        process.waits = groups_[entry.process].waits;
        operation.waits = groups_[entry.operation].waits;
        site.waits = groups_[entry.call_site].waits;
    }
    processes.finish(tables.processes);
    operations.finish(tables.operations);
    sites.finish(tables.call_sites);
    for (std::size_t i = 0; i < std::min(tables.call_sites.size(), named_call_sites); ++i) {
        Culprit &row = tables.call_sites[i];
        if (row.number == 0) continue;
        row.where = model_.source.call_site(row.number);
        row.site = call_site_words(row.where);
    }
}

}  // namespace planloop::analysis
