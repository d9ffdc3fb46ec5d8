// What is held: takes ranges and gives them back as the kernel does, and tells the Observer which lock call's hold
// ended why. A hold ends when the last part of it goes.
//
// The reason is not always known at once: a conflicting acquisition proves a hold over whose owner's death the
// supervisor reports a moment later, and a flock conversion drops the old lock before it is known whether it gets
// the new one. Such an end gets a ticket, and `decide` names the reason.
#ifndef PLANLOOP_ANALYSIS_HOLDS_H
#define PLANLOOP_ANALYSIS_HOLDS_H

#include <vector>

#include "analysis/detector.h"
#include "analysis/model.h"
#include "analysis/waits.h"

namespace planloop::analysis {

class Holds {
  public:
    Holds(Model &model, Waits &waits, Observer &observer) : model_(model), waits_(waits), observer_(observer) {}

    // Takes the range for the request's owner, who holds nothing there (give it back before).
    void take(const Request &request);
    // What a call that got its lock proves over: every hold of others that excludes it.
    void evict(const Request &request);
    // Gives back [first, last] of what `owner` has of `lock`; false when that is nothing. A thread may hold a lock
    // several times over: then the hold of lock call `entry` goes, or the last one.
    bool give_back(Index lock, Index owner, std::uint64_t first, std::uint64_t last, const HoldEnd &end,
                   std::uint64_t entry = 0);
    // The mode in which `owner` holds some part of `lock`; none when it holds nothing.
    wire::Mode mode_of(Index lock, Index owner) const;
    // Ends all that an owner has; `owned` is its list.
    void drop_all(std::vector<Index> &owned, const HoldEnd &end);

    std::uint64_t new_ticket() { return ++tickets_; }
    void decide(std::uint64_t ticket, Reason reason, EndCertainty certainty) {
        observer_.decided(ticket, reason, certainty);
    }
    // Decides all that waited for the fate of a process, now that it is known to be alive (`lost`) or how it died.
    void decide_all(Process &process, const ProcessEnd *end);

  private:
    static constexpr std::size_t kFewOwned = 8;  // to look through them is quicker than to ask the map

    static std::uint64_t key(Index domain, wire::Family family, Index owner) noexcept;
    Index find_ranges(Index lock, Index owner) const {
        const Lock &about = model_.locks[lock];
        const std::vector<Index> &owned = model_.owned_by(about.family, owner);
        return owned.empty() ? kNone : find_among(owned, about, owner);  // mostly empty: it holds nothing
    }
    Index find_among(const std::vector<Index> &owned, const Lock &about, Index owner) const;
    Index ranges_of(Index lock, Index owner);
    std::vector<Index> &owned_by(wire::Family family, Index owner);
    void cut(Index ranges, std::uint64_t first, std::uint64_t last, const HoldEnd &end);
    void pop(Index ranges, std::uint64_t entry, const HoldEnd &end);
    void finish_hold(Index hold, const HoldEnd &end);
    void release_ranges(Index ranges);
    void evict_hold(Index hold, Index ranges);

    Model &model_;
    Waits &waits_;
    Observer &observer_;
    FlatMap by_owner_;  // what stands beyond the first kFewOwned of an owner's list
    std::uint64_t tickets_ = 0;
    std::vector<RangeMap::Segment> removed_, kept_;
    struct Ending {
        Index hold;
        std::uint32_t parts;
    };
    std::vector<Ending> ending_;
};

// The supervisor's report of a death may come after the next owner's acquisition, but not by more than this.
inline constexpr std::int64_t kLateDeathNs = 1'000'000'000;

}  // namespace planloop::analysis

#endif
