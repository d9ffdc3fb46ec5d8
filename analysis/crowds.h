// Makes crowds (crowd.h) of requests that wait, and takes them apart again. Used by Waits.
#ifndef PLANLOOP_ANALYSIS_CROWDS_H
#define PLANLOOP_ANALYSIS_CROWDS_H

#include <vector>

#include "analysis/culprits.h"
#include "analysis/model.h"

namespace planloop::analysis {

class Crowds {
  public:
    static constexpr std::size_t kLeastAlike = 3;  // that wait alone, before the next one makes a crowd

    Crowds(Model &model, Culprits &culprits) : model_(model), culprits_(culprits) {}

    // The leader of the crowd that the request may join, kNone: it waits alone. `made`: the crowd is new, so its leader
    // has to be told of what stands in its way.
    Index leader_for(const Request &request, bool &made);
    // False: somebody waits for the request's thread, so it must wait alone.
    bool join(Index request, Index leader);
    // The request is over.
    void remove(Index request);
    // It waits alone from now on.
    void part(Index request);
    // Those of an owner, who is about to have the lock; false: there are none.
    bool part_owned_by(Index crowd, wire::Family family, Index owner) {
        return model_.crowds[crowd].owners.find(owner) != kNone && part_all_owned_by(crowd, family, owner);
    }
    // To be called when the event was applied, before time goes on.
    void part_bridges();
    void part_all();

    // Completes pieces and sums. The leader must be settled.
    void advance(Index index) {
        Crowd &crowd = model_.crowds[index];
        if (crowd.told_to_ns < model_.now_ns) complete(crowd);
    }
    // A thread ceases to stand in the leader's way.
    void add_piece(Crowd &crowd, const Blame &blame, std::int64_t until_ns);
    // Who stood and stands in the member's way, as if it had waited alone but not in order; advance() must be called
    // before.
    void tell(const Request &member, std::vector<Blame> &blame) const;
    bool was_blocked(const Request &member) const {
        return model_.crowds[member.crowd].blocked_ns > member.blocked_base_ns;
    }

  private:
    bool is_alike(const Request &one, const Request &other) const;
    bool part_all_owned_by(Index crowd, wire::Family family, Index owner);
    void complete(Crowd &crowd);
    void merge_pieces(Crowd &crowd) const;
    void end(Index crowd);

    Model &model_;
    Culprits &culprits_;
};

}  // namespace planloop::analysis

#endif
