#include "analysis/lock_order.h"

#include <algorithm>
#include <iterator>
#include <map>
#include <set>
#include <utility>

namespace planloop::analysis {
namespace {

constexpr std::uint64_t kMostSteps = 2'000'000;
constexpr std::size_t kMostCircles = 200;
constexpr std::size_t kLengths[] = {2, 3, 4, 5, 6, 8, 16, 32, 64, 128};
constexpr std::size_t kLong = 16;                // length from which it is worth looking first whether there is a way
constexpr std::uint64_t kMostLooks = 4'000'000;  // for such ways

class Search {
  public:
    Search(const std::vector<const Dependency *> &dependencies, const ProcessOrder &order)
        : all_(dependencies), order_(order) {
        keep_what_can_be_on_a_circle();
        for (std::size_t i = 0; i < all_.size(); ++i)
            if (alive_[i]) by_held_[all_[i]->held.domain].push_back(i);
    }

    Circles run() {
        const std::size_t candidates = static_cast<std::size_t>(std::count(alive_.begin(), alive_.end(), true));
        for (const std::size_t length : kLengths) {
            cut_off_ = false;
            for (std::size_t i = 0; i < all_.size() && circles_.complete; ++i) {
                if (!alive_[i] || (length >= kLong && !may_return(i, length))) continue;
                path_.assign(1, i);
                extend(length);
            }
            // Nothing was left that a longer path could have shown.
            if (!cut_off_ || length >= candidates) break;
        }
        if (cut_off_ && kLengths[std::size(kLengths) - 1] < candidates) circles_.complete = false;
        return std::move(circles_);
    }

  private:
    // Takes away, again and again, what wants a lock that nobody holds in a dependency, or holds one that nobody wants.
    void keep_what_can_be_on_a_circle() {
        struct Domain {
            std::vector<std::size_t> held_in, wanted_in;
            std::size_t held = 0, wanted = 0;  // of these, those that are left
        };
        std::map<Index, Domain> domains;
        for (std::size_t i = 0; i < all_.size(); ++i) {
            domains[all_[i]->held.domain].held_in.push_back(i);
            domains[all_[i]->wanted.domain].wanted_in.push_back(i);
        }
        std::vector<const Domain *> done;
        for (auto &[index, domain] : domains) {
            domain.held = domain.held_in.size();
            domain.wanted = domain.wanted_in.size();
            if (domain.held == 0 || domain.wanted == 0) done.push_back(&domain);
        }
        alive_.assign(all_.size(), true);
        while (!done.empty()) {
            const Domain &one = *done.back();
            done.pop_back();
            for (const std::vector<std::size_t> *list : {&one.held_in, &one.wanted_in}) {
                for (const std::size_t i : *list) {
                    if (!alive_[i]) continue;
                    alive_[i] = false;
                    Domain &held = domains[all_[i]->held.domain], &wanted = domains[all_[i]->wanted.domain];
                    if (--held.held == 0) done.push_back(&held);
                    if (--wanted.wanted == 0) done.push_back(&wanted);
                }
            }
        }
    }

    // Whether a path from the dependency back to it, of at most so many, is there at all, whoever may coincide: most
    // long paths lead nowhere, and to go along each of them costs the square of its length.
    bool may_return(std::size_t first, std::size_t length) {
        std::vector<Index> frontier{all_[first]->wanted.domain}, further;
        std::set<Index> seen(frontier.begin(), frontier.end());
        for (std::size_t steps = 1; steps < length && !frontier.empty(); ++steps) {
            for (const Index domain : frontier) {
                const auto at = by_held_.find(domain);
                if (at == by_held_.end()) continue;
                for (const std::size_t next : at->second) {
                    if (++looks_ > kMostLooks) return true;
                    const Index wanted = all_[next]->wanted.domain;
                    if (next > first && wanted == all_[first]->held.domain) return true;
                    if (next > first && seen.insert(wanted).second) further.push_back(wanted);
                }
            }
            frontier.swap(further);
            further.clear();
        }
        cut_off_ = cut_off_ || !frontier.empty();
        return false;
    }

    bool may_join(std::size_t next) const {
        for (const std::size_t on_path : path_) {
            const Dependency &one = *all_[on_path], &other = *all_[next];
            if (one.held.overlaps(other.held) || !can_coincide(one, other, order_)) return false;
        }
        return true;
    }

    void extend(std::size_t length) {
        if (++steps_ > kMostSteps || circles_.found.size() >= kMostCircles) circles_.complete = false;
        if (!circles_.complete) return;
        const Dependency &last = *all_[path_.back()];
        const std::size_t first = path_.front();
        if (path_.size() > 1 && last.wanted.excludes(all_[first]->held)) {
            note();
            return;  // what goes on from here contains this circle
        }
        const auto at = by_held_.find(last.wanted.domain);
        if (at == by_held_.end()) return;
        for (const std::size_t next : at->second) {
            // A circle is found from its first dependency.
            if (next <= first || !last.wanted.excludes(all_[next]->held) || !may_join(next)) continue;
            if (path_.size() == length) {
                cut_off_ = true;
                return;
            }
            path_.push_back(next);
            extend(length);
            path_.pop_back();
        }
    }

    void note() {
        using Part = std::pair<Index, std::pair<std::uint64_t, std::uint64_t>>;
        std::vector<Part> parts;
        for (const std::size_t at : path_) {
            const LockPart &held = all_[at]->held;
            parts.push_back({held.domain, {held.first, held.last}});
        }
        std::sort(parts.begin(), parts.end());
        for (const std::vector<Part> &known : known_)
            if (std::includes(parts.begin(), parts.end(), known.begin(), known.end())) return;
        known_.push_back(std::move(parts));
        circles_.found.push_back(path_);
    }

    const std::vector<const Dependency *> &all_;
    const ProcessOrder &order_;
    std::vector<bool> alive_;
    std::map<Index, std::vector<std::size_t>> by_held_;
    std::vector<std::size_t> path_;
    std::vector<std::vector<std::pair<Index, std::pair<std::uint64_t, std::uint64_t>>>> known_;
    Circles circles_;
    std::uint64_t steps_ = 0, looks_ = 0;
    bool cut_off_ = false;
};

}  // namespace

void add_witness(Participant &participant, const Model &model, const Dependency &seen, std::int64_t from_utc_ns) {
    participant.asked_ns = seen.t_ns - from_utc_ns;
    participant.times = seen.times;
    participant.asked_at = model.source.call_site(seen.wanted.site);
    participant.holds_from = {model.source.call_site(seen.held.site)};
}

bool can_coincide(const Dependency &one, const Dependency &other, const ProcessOrder &order) {
    if (one.stream == other.stream || (one.place.process == other.place.process && one.tid == other.tid)) return false;
    for (const LockPart &mine : one.all)
        for (const LockPart &theirs : other.all)
            if (mine.excludes(theirs)) return false;
    return !order.before(one.place, other.place) && !order.before(other.place, one.place);
}

Circles find_circles(const std::vector<const Dependency *> &dependencies, const ProcessOrder &order) {
    return Search(dependencies, order).run();
}

}  // namespace planloop::analysis
