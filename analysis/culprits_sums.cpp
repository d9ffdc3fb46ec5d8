// The sums of culprits.h: what requests and crowds were charged becomes rows of tables.
#include <algorithm>
#include <array>
#include <tuple>
#include <utility>

#include "analysis/culprits.h"
#include "analysis/saturate.h"

namespace planloop::analysis {
namespace {

// Keys of a crowd: a culprit's index, or this and a group's.
constexpr std::uint64_t kGroupKey = std::uint64_t{1} << 32;

}  // namespace

void Culprits::add_charge(Request &request, Index culprit, std::int64_t ns) {
    if (!request.charges.empty() && request.charges.back().culprit == culprit) {
        request.charges.back().ns += ns;
        return;
    }
    request.charges.push_back({culprit, ns, 0, false});
}

// Every member waited for so long, whoever came or went was preceded by a settlement.
void Culprits::charge(Crowd &crowd, Index culprit, std::int64_t ns) {
    if (crowd.members.empty()) return;
    crowd.charged_ns += ns;
    crowd.latest = culprit;
    Entry &entry = entries_[culprit];
    add_saturated(entry.caused_ns, times_saturated(ns, static_cast<std::int64_t>(crowd.members.size())));
    const Index place = crowd.place_of_key(culprit);
    if (crowd.newly_charged(place) == 0) return;
    const std::array<Index, 3> groups{entry.process, entry.operation, entry.call_site};
    std::array<Index, 3> places = crowd.charged[place].groups;
    if (places == Crowd::kNoGroups) {
        for (std::size_t i = 0; i < groups.size(); ++i) places[i] = crowd.place_of_key(kGroupKey | groups[i]);
        crowd.charged[place].groups = places;
    }
    for (std::size_t i = 0; i < groups.size(); ++i) groups_[groups[i]].waits += crowd.newly_charged(places[i]);
}

void Culprits::flush(Request &request) {
    for (Blame &blame : request.blame) {
        if (blame.charged_ns == 0) continue;
        add_charge(request, blame.culprit, std::exchange(blame.charged_ns, 0));
    }
}

void Culprits::compact(Request &request) {
    std::vector<Charge> &charges = request.charges;
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
    for (const Crowd::Charged &one : crowd.charged)
        if (one.key < kGroupKey && one.up_to >= request.number)
            request.charges.push_back({static_cast<Index>(one.key), 0, 0, true});
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
    } else if (!request.blame.empty()) {
        flush(request);
    }
    if (request.charges.size() > 1) compact(request);
    std::int64_t charged = request.carried_ns;
    for (const Charge &charge : request.charges) charged += charge.ns;
    const bool nobody_known = charged == 0;
    if (nobody_known && (given_up || request.blame.empty() || request.blame[0].pid != 0)) return;
    ++waits_;
    add_saturated(waited_ns_, wait_ns);
    add_saturated(model_.locks[request.lock].waited_ns, wait_ns);
    if (nobody_known) {
        add_saturated(unknown_ns_, wait_ns);
        return;
    }
    // Stamps of one call are turned into nanoseconds each by itself, so a wait may be off by some from its parts.
    std::int64_t gap = wait_ns - charged;
    while (gap < 0) gap += take_back(request, -gap);
    add_saturated(handover_ns_, gap);
    for (const Charge &charge : request.charges) {
        if (!charge.counted) continue;
        const Entry &entry = entries_[charge.culprit];
        for (const Index at : {entry.process, entry.operation, entry.call_site}) groups_[at].counted = waits_;
    }
    for (const Charge &charge : request.charges) {
        if (charge.ns == 0) continue;
        Entry &entry = entries_[charge.culprit];
        add_saturated(entry.caused_ns, charge.ns);
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
        add_saturated(others.caused_ns, rows[i].caused_ns);
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
        for (Culprit *row : {&process, &operation, &site}) add_saturated(row->caused_ns, entry.caused_ns);
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
