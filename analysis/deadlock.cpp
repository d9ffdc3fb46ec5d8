#include "analysis/deadlock.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>

#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kTold = 8;  // members whose part in the ring the summary tells

template <class T>
void add_unique(std::vector<T> &list, const T &value) {
    if (std::find(list.begin(), list.end(), value) == list.end()) list.push_back(value);
}

// The same for what may be ten thousand: adds what it has not seen yet.
template <class T>
class Unique {
  public:
    explicit Unique(std::vector<T> &list) : list_(list) {}
    void add(const T &value) {
        if (seen_.insert(value).second) list_.push_back(value);
    }

  private:
    std::vector<T> &list_;
    std::set<T> seen_;
};

// In the order of the locks, each once.
void add_hold(const Model &model, DeadlockMember &member, const Hold &hold) {
    model.for_holders(hold, [&](Index process) { add_unique(member.holders, model.table.process(process).pid); });
    member.taker = hold.pid;
    const auto at = std::lower_bound(member.holds.begin(), member.holds.end(), hold.lock);
    if (at != member.holds.end() && *at == hold.lock) return;
    member.holds_from.insert(member.holds_from.begin() + (at - member.holds.begin()), hold.site);
    member.holds.insert(at, hold.lock);
}

// Follows the ring from `first` as far as it leads to new members, then takes the next one left over.
std::vector<std::size_t> ring_order(const std::vector<DeadlockMember> &members, std::size_t first) {
    std::vector<std::size_t> order;
    std::vector<bool> seen(members.size(), false);
    std::size_t at = first;
    while (order.size() < members.size()) {
        seen[at] = true;
        order.push_back(at);
        std::size_t next = members.size();
        for (const std::size_t to : members[at].waits_on)
            if (!seen[to] && next == members.size()) next = to;
        if (next == members.size()) {
            const auto left = std::find(seen.begin(), seen.end(), false);
            next = static_cast<std::size_t>(left - seen.begin());
        }
        at = next;
    }
    return order;
}

std::string name_of(const Model &model, const DeadlockMember &member) {
    return thread_words(model, member.image, member.pid, member.tid);
}

std::string locks_of(const Model &model, const std::vector<Index> &locks) {
    std::vector<std::string> names;
    for (const Index lock : locks) add_unique(names, lock_words(model, lock));
    return list_words(names, kTold);
}

std::string ring_words(const Model &model, const Deadlock &deadlock) {
    const std::vector<DeadlockMember> &members = deadlock.members;
    std::string words;
    const std::size_t told = std::min(members.size(), kTold);
    for (std::size_t i = 0; i < told; ++i) {
        const DeadlockMember &member = members[i];
        words += fmt::format("{}{} {}{} and waits for {}", i == 0 ? "" : "; ", name_of(model, member),
                             member.holds.empty() ? "stands in the way" : "holds ", locks_of(model, member.holds),
                             lock_words(model, member.waits_for));
        std::vector<std::string> blockers;
        for (const std::size_t on : member.waits_on) blockers.push_back(name_of(model, members[on]));
        if (!blockers.empty())
            words += fmt::format(", which {} {}", list_words(blockers, kTold), blockers.size() > 1 ? "hold" : "holds");
    }
    if (told < members.size()) words += fmt::format("; and so on through {} more", members.size() - told);
    return words + ".";
}

std::string advice(const Model &model, const Deadlock &deadlock) {
    std::vector<std::string> names;
    std::vector<Index> locks;
    Unique<std::string> each_name(names);
    Unique<Index> each_lock(locks);
    for (const DeadlockMember &member : deadlock.members) {
        each_name.add(lock_words(model, member.waits_for));
        each_lock.add(member.waits_for);
    }
    if (deadlock.members.size() == 1) {
        const DeadlockMember &only = deadlock.members.front();
        if (only.taker != only.pid)
            return " Lock it only once: let this command use the open file that is locked already (in a shell: by its "
                   "descriptor, as flock 9), or unlock it before.";
        return fmt::format(" Lock {} only once, through one descriptor, or give up the first lock before asking again.",
                           names.front());
    }
    if (locks.size() == 1) {
        return fmt::format(
            " They hold parts of {0}, or hold it shared, and ask for more of it: take all that is needed in one call, "
            "exclusively, or take its ranges in ascending order everywhere.",
            names.front());
    }
    const bool ring = deadlock.simple() && locks.size() == deadlock.members.size() &&
                      std::all_of(deadlock.members.begin(), deadlock.members.end(),
                                  [](const DeadlockMember &member) { return member.holds.size() == 1; });
    // A ring is an order but for one in it, whom to change is enough; it begins with the lock whose name comes first.
    const auto least = std::min_element(names.begin(), names.end());
    if (ring)
        std::rotate(names.begin(), least, names.end());
    else
        std::sort(names.begin(), names.end());
    const std::string last = names.back();
    std::string order;
    const std::size_t told = std::min(names.size(), kTold);
    for (std::size_t i = 0; i < told; ++i) order += (i == 0 ? "" : ", then ") + names[i];
    if (told < names.size()) order += fmt::format(" (and the {} others after them)", names.size() - told);
    std::string words = fmt::format(" Take these locks in one order everywhere: {}.", order);
    if (!ring) return words;
    for (const DeadlockMember &member : deadlock.members) {
        if (lock_words(model, member.waits_for) != names.front()) continue;
        words += fmt::format(" The one to change is {}{}: it held {} when it asked for {}.", name_of(model, member),
                             starter_words(starter_of(model, member.image)), last, names.front());
        break;
    }
    return words;
}

// Of a lock that it did not take itself.
std::string inheritance_words(const Model &model, const DeadlockMember &member) {
    if (member.taker == member.pid) return "";
    return ", through an open file that it inherited" + starter_words(starter_of(model, member.image));
}

// Of those in the ring the one whose locks the fewest others have too, with all who have them: whoever is left of a
// script whose lock command alone was killed would go on as if it had the lock.
std::string ending_words(const Deadlock &deadlock) {
    const auto easiest = std::min_element(
        deadlock.members.begin(), deadlock.members.end(),
        [](const DeadlockMember &a, const DeadlockMember &b) { return a.holders.size() < b.holders.size(); });
    std::vector<std::int32_t> pids{easiest->pid};
    // Who waits for itself through another's lock leaves that one with its lock.
    if (deadlock.members.size() > 1)
        for (const std::int32_t pid : easiest->holders) add_unique(pids, pid);
    std::sort(pids.begin(), pids.end());
    std::string words = "kill";
    for (const std::int32_t pid : pids) words += fmt::format(" {}", pid);
    return words;
}

std::string weakness_words(const Model &model, const std::vector<Weakness> &weaknesses, bool past) {
    std::vector<std::string> words;
    for (const Weakness &weakness : weaknesses) {
        const std::string who = process_words(model, weakness.image, weakness.pid);
        const std::string lock = lock_words(model, weakness.lock);
        switch (weakness.kind) {
            case Weakness::other_thread:
                words.push_back(fmt::format("another thread of {} runs and could release {}", who, lock));
                break;
            case Weakness::sharer:
                words.push_back(fmt::format("{} shares the open file of {} and could release it", who, lock));
                break;
            case Weakness::taker:
                words.push_back(fmt::format("{}, which took {}, is not known to be blocked", who, lock));
                break;
        }
    }
    if (words.empty()) return "";
    return fmt::format(" {}: {}.", past ? "It was not certain while it lasted" : "It may resolve itself",
                       list_words(words, 4));
}

}  // namespace

bool Deadlock::simple() const {
    return std::all_of(members.begin(), members.end(),
                       [](const DeadlockMember &member) { return member.waits_on.size() == 1; });
}

std::vector<DeadlockMember> describe_members(const Model &model, const WaitGraph &graph,
                                             const std::vector<Index> &threads) {
    std::vector<DeadlockMember> members(threads.size());
    FlatMap places;
    for (std::size_t i = 0; i < threads.size(); ++i) places.put(threads[i], static_cast<Index>(i));
    std::vector<WaitGraph::Edge> edges;
    for (std::size_t i = 0; i < threads.size(); ++i) {
        const Request &request = model.requests[model.blocked_request(threads[i])];
        DeadlockMember &member = members[i];
        member.stream = request.stream;
        member.image = request.image;
        member.pid = request.pid;
        member.tid = request.tid;
        member.entry = request.entry;
        member.since_ns = request.call_ns;
        member.mode = request.mode;
        member.wanted = {request.start, request.len};
        member.waits_for = request.lock;
        member.site = request.site;
        edges.clear();
        graph.edges(threads[i], edges);
        for (const WaitGraph::Edge &edge : edges) {
            const Index place = places.find(edge.to);
            if (place == kNone) continue;
            add_unique(member.waits_on, std::size_t{place});
            add_hold(model, members[place], model.holds[edge.hold]);
        }
    }
    const auto first = std::min_element(members.begin(), members.end(), [](const auto &a, const auto &b) {
        return std::tie(a.pid, a.tid, a.stream) < std::tie(b.pid, b.tid, b.stream);
    });
    const std::vector<std::size_t> order = ring_order(members, static_cast<std::size_t>(first - members.begin()));
    std::vector<std::size_t> place_after(order.size());
    for (std::size_t i = 0; i < order.size(); ++i) place_after[order[i]] = i;
    std::vector<DeadlockMember> ordered;
    ordered.reserve(order.size());
    for (const std::size_t at : order) {
        ordered.push_back(std::move(members[at]));
        for (std::size_t &on : ordered.back().waits_on) on = place_after[on];
        std::sort(ordered.back().waits_on.begin(), ordered.back().waits_on.end());
    }
    return ordered;
}

Finding deadlock_finding(const Model &model, const Deadlock &deadlock, std::int64_t from_utc_ns) {
    Finding finding;
    const std::vector<DeadlockMember> &members = deadlock.members;
    finding.kind = members.size() == 1 ? "self_deadlock" : "deadlock";
    finding.severity = Severity::error;
    finding.certainty = deadlock.certainty;
    finding.from_ns = deadlock.from_ns - from_utc_ns;
    finding.to_ns = deadlock.to_ns < 0 ? -1 : deadlock.to_ns - from_utc_ns;
    finding.resolved_by = deadlock.resolved_by;

    Unique<std::string> locks(finding.locks);
    for (const DeadlockMember &member : members) {
        Participant participant = participant_of(model, member.image, member.pid, member.tid);
        for (const Index lock : member.holds) {
            participant.holds.push_back(model.locks[lock].id);
            locks.add(model.locks[lock].id);
        }
        for (const std::uint32_t site : member.holds_from)
            participant.holds_from.push_back(model.source.call_site(site));
        participant.asked_ns = member.since_ns - from_utc_ns;
        participant.times = deadlock.times;
        participant.asked_at = model.source.call_site(member.site);
        participant.waits_for = model.locks[member.waits_for].id;
        participant.wanted = member.wanted;
        locks.add(participant.waits_for);
        for (const std::size_t on : member.waits_on) add_unique(participant.waits_on, members[on].pid);
        finding.participants.push_back(std::move(participant));
    }
    for (const Weakness &weakness : deadlock.weaknesses)
        if (weakness.kind != Weakness::other_thread)
            finding.also_held_by.push_back({weakness.pid, model.source.process(weakness.image).name});

    std::set<std::int32_t> pids;
    for (const DeadlockMember &member : members) pids.insert(member.pid);
    const char *what = pids.size() == members.size() ? "processes" : "threads";
    std::string &text = finding.summary;
    if (members.size() == 1)
        text = fmt::format("{0} waits for itself: it waits for {1}, which it holds already{2}.",
                           name_of(model, members.front()), lock_words(model, members.front().waits_for),
                           inheritance_words(model, members.front()));
    else
        text = fmt::format("{} {} wait for each other in a circle (deadlock): {}", members.size(), what,
                           ring_words(model, deadlock));
    if (deadlock.to_ns >= 0)
        text += fmt::format(" It lasted {} until {}.", duration_words(deadlock.to_ns - deadlock.from_ns),
                            deadlock.resolved_by);
    else
        text += fmt::format(" It is still in force: nobody in it can go on until {} is stopped (for instance: {}).",
                            members.size() == 1 ? "it" : "one of them", ending_words(deadlock));
    if (deadlock.times > 1) text += fmt::format(" It broke up and closed again {} times.", deadlock.times - 1);
    if (deadlock.certainty != Certainty::confirmed)
        text += weakness_words(model, deadlock.weaknesses, deadlock.to_ns >= 0);
    text += advice(model, deadlock);
    return finding;
}

}  // namespace planloop::analysis
