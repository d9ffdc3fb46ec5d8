#include "analysis/wait_graph.h"

#include <algorithm>

namespace planloop::analysis {
namespace {

constexpr int kGenerations = 8;  // of processes that wait for their children, one within the other

}  // namespace

bool WaitGraph::all_stopped(Index process) const {
    const std::vector<Index> &threads = model_.table.process(process).threads;
    return !threads.empty() && std::all_of(threads.begin(), threads.end(), [&](Index thread) {
        return model_.blocked_request(thread) != kNone || model_.table.thread(thread).waits_for_child;
    });
}

void WaitGraph::add_stopped(Index thread, Index hold, int level, std::vector<Edge> &out) const {
    if (model_.blocked_request(thread) != kNone) {
        out.push_back({thread, hold});
        return;
    }
    if (level == kGenerations) return;
    model_.table.for_awaited_children(model_.table.thread(thread), [&](Index child, std::int32_t /*between*/) {
        for (const Index one : model_.table.process(child).threads) add_stopped(one, hold, level + 1, out);
    });
}

void WaitGraph::edges(Index thread, std::vector<Edge> &out) const {
    const Index request = model_.blocked_request(thread);
    if (request == kNone) return;
    model_.for_conflicts(model_.requests[request], [&](Index hold) {
        const Index taker = model_.table.find_stream(model_.holds[hold].stream);
        model_.for_holders(model_.holds[hold], [&](Index process) {
            if (taker != kNone && model_.table.thread(taker).process == process) {
                add_stopped(taker, hold, 0, out);
            } else if (all_stopped(process)) {
                for (const Index one : model_.table.process(process).threads) add_stopped(one, hold, 0, out);
            }
        });
    });
}

void WaitGraph::awaited(Index thread, std::vector<Index> &out) const {
    std::vector<Edge> found;
    add_stopped(thread, kNone, 0, found);
    for (const Edge &edge : found)
        if (edge.to != thread) out.push_back(edge.to);
}

bool WaitGraph::has_waiters(const std::vector<Index> &owned) const {
    return std::any_of(owned.begin(), owned.end(), [&](Index at) {
        const Ranges &ranges = model_.ranges[at];
        const std::vector<Index> &waiters = model_.locks.domain(ranges.domain).waiters;
        return std::any_of(waiters.begin(), waiters.end(), [&](Index waiter) {
            const Request &request = model_.requests[waiter];
            return request.blocking && request.obstacles > 0 &&
                   !(request.owner == ranges.owner && request.family == ranges.family);
        });
    });
}

// Most blocked threads have nothing that anybody waits for, and so are in no cycle.
bool WaitGraph::somebody_waits_for(Index index, int level) const {
    const Process &process = model_.table.process(index);
    if (has_waiters(process.owned)) return true;
    for (const Index thread : process.threads)
        if (has_waiters(model_.table.thread(thread).owned)) return true;
    for (const Descriptor &descriptor : process.descriptors)
        if (has_waiters(model_.table.description(descriptor.description).owned)) return true;
    const Index parent = model_.table.recorded_parent(index);
    if (parent == kNone || level == kGenerations) return false;
    const std::vector<Index> &threads = model_.table.process(parent).threads;
    const bool awaited = std::any_of(threads.begin(), threads.end(),
                                     [&](Index thread) { return model_.table.thread(thread).waits_for_child; });
    return awaited && somebody_waits_for(parent, level + 1);
}

std::vector<Index> WaitGraph::cycle_through(Index thread) const {
    if (!somebody_waits_for(model_.table.thread(thread).process, 0)) return {};

    // All that can be reached, and by whom.
    std::vector<Index> reached{thread};
    std::vector<std::vector<Index>> reached_by(1);  // places in `reached`
    FlatMap place_of;
    place_of.put(thread, 0);
    std::vector<Edge> out;
    for (Index at = 0; at < reached.size(); ++at) {
        out.clear();
        edges(reached[at], out);
        for (const Edge &edge : out) {
            Index place = place_of.find(edge.to);
            if (place == kNone) {
                place = static_cast<Index>(reached.size());
                place_of.put(edge.to, place);
                reached.push_back(edge.to);
                reached_by.emplace_back();
            }
            reached_by[place].push_back(at);
        }
    }
    if (reached_by[0].empty()) return {};

    // Of these, the ones that lead back.
    std::vector<bool> leads_back(reached.size(), false);
    std::vector<Index> members, todo{0};
    leads_back[0] = true;
    while (!todo.empty()) {
        const Index at = todo.back();
        todo.pop_back();
        members.push_back(reached[at]);
        for (const Index before : reached_by[at]) {
            if (leads_back[before]) continue;
            leads_back[before] = true;
            todo.push_back(before);
        }
    }
    return members;
}

// Which threads can never go on by themselves: starts from all that are stopped and takes away, until nothing changes,
// whoever somebody running could free.
class WaitGraph::Knot {
  public:
    Knot(const WaitGraph &graph, const std::vector<Index> &members) : model_(graph.model_) {
        for (const Index member : members) add(member);
        std::size_t next = 0;  // expanding adds more
        while (next < threads_.size()) expand(threads_[next++]);
        stuck_.assign(threads_.size(), true);
        for (bool changed = true; changed;) {
            changed = false;
            for (std::size_t at = 0; at < threads_.size(); ++at) {
                if (!stuck_[at] || can_never_go_on(threads_[at])) continue;
                stuck_[at] = false;
                changed = true;
            }
        }
    }

    bool stuck(Index thread) const {
        const Index place = places_.find(thread);
        return place != kNone && stuck_[place];
    }
    bool process_stuck(Index process) const {
        const std::vector<Index> &threads = model_.table.process(process).threads;
        return !threads.empty() &&
               std::all_of(threads.begin(), threads.end(), [&](Index thread) { return stuck(thread); });
    }
    bool hold_stuck(const Hold &hold) const {
        if (owner_kind(model_.locks[hold.lock].family) == wire::Owner::thread) return stuck(hold.owner);
        bool any = false, all = true;  // what nobody has any more is about to end
        model_.for_holders(hold, [&](Index process) {
            any = true;
            all = all && process_stuck(process);
        });
        return any && all;
    }

  private:
    void add(Index thread) {
        if (places_.find(thread) != kNone) return;
        places_.put(thread, static_cast<Index>(threads_.size()));
        threads_.push_back(thread);
    }
    void add_all(Index process) {
        for (const Index thread : model_.table.process(process).threads) add(thread);
    }
    void expand(Index thread) {
        const Index request = model_.blocked_request(thread);
        if (request != kNone) {
            model_.for_conflicts(model_.requests[request], [&](Index hold) {
                model_.for_holders(model_.holds[hold], [&](Index process) { add_all(process); });
            });
        }
        model_.table.for_awaited_children(model_.table.thread(thread),
                                          [&](Index child, std::int32_t /*between*/) { add_all(child); });
    }
    bool can_never_go_on(Index thread) const {
        const Index request = model_.blocked_request(thread);
        bool never = false;
        if (request != kNone) {
            model_.for_conflicts(model_.requests[request],
                                 [&](Index hold) { never = never || hold_stuck(model_.holds[hold]); });
            return never;
        }
        bool all = true;
        model_.table.for_awaited_children(model_.table.thread(thread), [&](Index child, std::int32_t between) {
            never = true;
            all = all && between == 0 && process_stuck(child);
        });
        return never && all;
    }

    const Model &model_;
    FlatMap places_;
    std::vector<Index> threads_;
    std::vector<bool> stuck_;
};

// Whether all that keeps the stopped process from being stuck is that somebody between it and those that it waits for
// is not recorded; these are added.
bool WaitGraph::add_between(Index process, Index lock, int level, std::vector<Weakness> &out) const {
    if (level == kGenerations || !all_stopped(process)) return false;
    bool all = true, any = false;
    for (const Index thread : model_.table.process(process).threads) {
        model_.table.for_awaited_children(model_.table.thread(thread), [&](Index child, std::int32_t between) {
            const bool recorded = !model_.table.process(child).threads.empty();
            if (between == 0 && recorded) {
                const bool below = add_between(child, lock, level + 1, out);
                any = any || below;
                all = all && (below || all_stopped(child));
            } else if (recorded && all_stopped(child)) {
                any = true;
                const Index known = model_.table.find_pid(between);
                const std::uint32_t image = known == kNone ? 0 : model_.table.process(known).name_image;
                out.push_back({Weakness::between, lock, between, image});
            }
        });
    }
    return all && any;
}

Verdict WaitGraph::judge(const std::vector<Index> &members) const {
    const Knot knot(*this, members);
    Verdict verdict;
    const bool certain = std::all_of(members.begin(), members.end(), [&](Index member) { return knot.stuck(member); });
    if (certain) return verdict;
    verdict.certainty = Certainty::likely;
    const auto in_cycle = [&](Index process) {
        return std::any_of(members.begin(), members.end(),
                           [&](Index member) { return model_.table.thread(member).process == process; });
    };
    const auto add = [&](const Weakness &weakness) {
        for (const Weakness &known : verdict.weaknesses)
            if (known.pid == weakness.pid && known.lock == weakness.lock) return;
        verdict.weaknesses.push_back(weakness);
    };
    for (const Index member : members) {
        const Index request = model_.blocked_request(member);
        if (request == kNone) continue;
        model_.for_conflicts(model_.requests[request], [&](Index index) {
            const Hold &hold = model_.holds[index];
            model_.for_holders(hold, [&](Index process) {
                if (knot.process_stuck(process)) return;
                const Process &free = model_.table.process(process);
                Weakness weakness{Weakness::sharer, hold.lock, free.pid, free.name_image};
                if (in_cycle(process)) {
                    // Its participant is not stuck because of others; it is a weakness of its own only if a further
                    // thread of it runs.
                    if (all_stopped(process)) return;
                    weakness.kind = Weakness::other_thread;
                } else if (std::vector<Weakness> between; add_between(process, hold.lock, 0, between)) {
                    for (const Weakness &one : between) add(one);
                    return;
                } else if (free.pid == hold.pid) {
                    weakness.kind = Weakness::taker;
                    verdict.certainty = Certainty::possible;
                }
                add(weakness);
            });
        });
    }
    return verdict;
}

}  // namespace planloop::analysis
