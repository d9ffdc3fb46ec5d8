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

// The member itself if it has the hold; else who took it, if that one still has it.
Keeper keeper_of(const Model &model, const DeadlockMember &member, const Hold &hold) {
    Keeper keeper;
    bool own = false;
    model.for_holders(hold, [&](Index index) {
        const Process &process = model.table.process(index);
        own = own || process.pid == member.pid;
        if (keeper.pid == 0 || process.pid == hold.pid) keeper = {process.pid, process.name_image};
    });
    return own ? Keeper{} : keeper;
}

// In the order of the locks, each once.
void add_hold(const Model &model, DeadlockMember &member, const Hold &hold) {
    model.for_holders(hold, [&](Index process) { add_unique(member.holders, model.table.process(process).pid); });
    member.taker = hold.pid;
    const auto at = std::lower_bound(member.holds.begin(), member.holds.end(), hold.lock);
    if (at != member.holds.end() && *at == hold.lock) return;
    const auto place = at - member.holds.begin();
    member.holds_from.insert(member.holds_from.begin() + place, hold.site);
    member.keepers.insert(member.keepers.begin() + place, keeper_of(model, member, hold));
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

std::string keeper_name(const Model &model, const Keeper &keeper) {
    return process_words(model, keeper.image, keeper.pid);
}

// Who holds what others wait for through the member.
std::string holder_name(const Model &model, const DeadlockMember &member) {
    return member.kept() ? keeper_name(model, member.keepers.front()) : name_of(model, member);
}

// The member's part in the ring up to what it waits for.
std::string part_words(const Model &model, const DeadlockMember &member) {
    if (member.holds.empty()) return fmt::format("{} stands in the way and", name_of(model, member));
    std::vector<Index> own;
    std::string words;
    for (std::size_t i = 0; i < member.holds.size(); ++i) {
        if (member.keepers[i].pid == 0)
            own.push_back(member.holds[i]);
        else
            words += fmt::format("{}{} holds {}", words.empty() ? "" : " and ", keeper_name(model, member.keepers[i]),
                                 lock_words(model, member.holds[i]));
    }
    if (words.empty()) return fmt::format("{} holds {} and", name_of(model, member), locks_of(model, own));
    words += fmt::format(" and waits for {} to end, which", name_of(model, member));
    return own.empty() ? words : fmt::format("{} holds {} and", words, locks_of(model, own));
}

std::string ring_words(const Model &model, const Deadlock &deadlock) {
    const std::vector<DeadlockMember> &members = deadlock.members;
    std::string words;
    const std::size_t told = std::min(members.size(), kTold);
    for (std::size_t i = 0; i < told; ++i) {
        const DeadlockMember &member = members[i];
        words += fmt::format("{}{} waits for {}", i == 0 ? "" : "; ", part_words(model, member),
                             lock_words(model, member.waits_for));
        std::vector<std::string> blockers;
        for (const std::size_t on : member.waits_on) add_unique(blockers, holder_name(model, members[on]));
        if (!blockers.empty())
            words += fmt::format(", which {} {}", list_words(blockers, kTold), blockers.size() > 1 ? "hold" : "holds");
    }
    if (told < members.size()) words += fmt::format("; and so on through {} more", members.size() - told);
    return words + ".";
}

// For a lock that a process holds while it waits for the member. POSIX locks cannot be passed on.
std::string release_advice(const Model &model, const DeadlockMember &member) {
    const Keeper &keeper = member.keepers.front();
    const std::string lock = lock_words(model, member.holds.front());
    const bool inheritable = owner_kind(model.locks[member.holds.front()].family) == wire::Owner::description;
    return fmt::format(" Let {} release {} before it starts and waits for what needs that lock too{}.",
                       keeper_name(model, keeper), lock,
                       inheritable ? ", or pass on the open file that is locked already (in a shell: by its "
                                     "descriptor, as flock 9)"
                                   : "");
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
        if (only.kept()) return release_advice(model, only);
        if (only.taker != only.pid)
            return " Lock it only once: let this command use the open file that is locked already (in a shell: by its "
                   "descriptor, as flock 9), or unlock it before.";
        return fmt::format(" Lock {} only once, through one descriptor, or give up the first lock before asking again.",
                           names.front());
    }
    if (locks.size() == 1) {
        const bool inherited =
            std::none_of(deadlock.members.begin(), deadlock.members.end(),
                         [](const DeadlockMember &member) { return member.taker == member.pid && !member.kept(); });
        if (inherited && deadlock.members.front().kept()) return release_advice(model, deadlock.members.front());
        if (inherited)
            return fmt::format(
                " They all have the open file through which {} is locked already, and lock it again through another: "
                "let them use that one (in a shell: by its descriptor, as flock 9), or unlock it before they begin.",
                names.front());
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
        words += fmt::format(" The one to change is {}{}: it held {} when it asked for {}.", holder_name(model, member),
                             member.kept() ? "" : starter_words(starter_of(model, member.image)), last, names.front());
        break;
    }
    return words;
}

// Of who waits for itself.
std::string self_words(const Model &model, const DeadlockMember &member) {
    const std::string name = name_of(model, member), lock = lock_words(model, member.waits_for);
    if (member.kept()) {
        const Keeper &keeper = member.keepers.front();
        const std::string &command = model.source.process(keeper.image).command_line;
        return fmt::format("{0} waits for {1}, which {2}{3} holds while it waits for {0} to end.", name, lock,
                           keeper_name(model, keeper), command.empty() ? "" : fmt::format(" ({})", command));
    }
    std::string how;
    if (member.taker != member.pid)
        how = ", through an open file that it inherited" + starter_words(starter_of(model, member.image));
    return fmt::format("{} waits for itself: it waits for {}, which it holds already{}.", name, lock, how);
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
            case Weakness::between:
                words.push_back(fmt::format(
                    "{}, for which the holder of {} waits, may do something else than wait (it is not recorded)", who,
                    lock));
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
    for (std::size_t i = 0; i < threads.size(); ++i) {
        places.put(threads[i], static_cast<Index>(i));
        members[i].pid = model.requests[model.blocked_request(threads[i])].pid;
    }
    std::vector<WaitGraph::Edge> edges;
    for (std::size_t i = 0; i < threads.size(); ++i) {
        const Request &request = model.requests[model.blocked_request(threads[i])];
        DeadlockMember &member = members[i];
        member.stream = request.stream;
        member.image = request.image;
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
    std::set<std::int32_t> keepers;
    for (const DeadlockMember &member : members) {
        Participant participant = participant_of(model, member.image, member.pid, member.tid);
        for (std::size_t i = 0; i < member.holds.size(); ++i) {
            const std::string &id = model.locks[member.holds[i]].id;
            const Keeper &keeper = member.keepers[i];
            locks.add(id);
            if (keeper.pid == 0) {
                participant.holds.push_back(id);
                participant.holds_from.push_back(model.source.call_site(member.holds_from[i]));
                continue;
            }
            participant.parent_holds.push_back(id);
            if (keepers.insert(keeper.pid).second)
                finding.also_held_by.push_back({keeper.pid, model.source.process(keeper.image).name});
        }
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
        if (weakness.kind != Weakness::other_thread && weakness.kind != Weakness::between &&
            keepers.insert(weakness.pid).second)
            finding.also_held_by.push_back({weakness.pid, model.source.process(weakness.image).name});

    std::set<std::int32_t> pids;
    for (const DeadlockMember &member : members) pids.insert(member.pid);
    const char *what = pids.size() == members.size() ? "processes" : "threads";
    std::string &text = finding.summary;
    if (members.size() == 1)
        text = self_words(model, members.front());
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
