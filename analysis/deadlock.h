// A circular wait as it was found, in numbers that stay true after its threads are gone, and its story in words.
#ifndef PLANLOOP_ANALYSIS_DEADLOCK_H
#define PLANLOOP_ANALYSIS_DEADLOCK_H

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "analysis/wait_graph.h"

namespace planloop::analysis {

// Who holds what stands in others' way through a member, where that is not the member itself: a process that waits for
// it to end.
struct Keeper {
    std::int32_t pid = 0;  // 0: the member itself
    std::uint32_t image = 0;
};

struct DeadlockMember {
    std::uint32_t stream = 0, image = 0;
    std::int32_t pid = 0, tid = 0;
    std::uint64_t entry = 0;  // of the blocked call
    std::int64_t since_ns = 0;
    wire::Mode mode{};
    ByteRange wanted;                       // as asked for
    Index waits_for = kNone;                // lock
    std::vector<Index> holds;               // locks that other members wait for; `keepers` says who has them
    std::vector<Keeper> keepers;            // as `holds`
    std::vector<std::uint32_t> holds_from;  // call sites, as `holds`; 0: not known
    std::uint32_t site = 0;                 // of the blocked call
    std::vector<std::size_t> waits_on;      // places among the members
    std::vector<std::int32_t> holders;      // pids of all processes that have `holds`
    std::int32_t taker = 0;                 // pid of who took the last of them

    bool kept() const { return !keepers.empty() && keepers.front().pid != 0; }
};

// A parent's wait for its child that closed a circle, or made one certain. Who kills a child and then waits for it
// makes such a one, for as long as the child takes to die.
struct ClosingWait {
    std::int32_t parent = 0;  // pid; 0: there is none
    std::int32_t child = 0;   // pid of the member that was killed at once; 0: none was
    std::int64_t t_ns = 0;
    bool closed_it = false;  // else `certainty` and `weaknesses` are those before
    Certainty certainty = Certainty::possible;
    std::vector<Weakness> weaknesses;
};

struct Deadlock {
    enum class State : std::uint8_t {
        open,      // in force
        settling,  // somebody in it went on; who or what made that possible may still turn up
        over,
    };
    // What ended it, weakest evidence first.
    enum class Cause : std::uint8_t { unknown, released, interrupted, died, refused };

    std::uint64_t id = 0;
    State state = State::open;
    Certainty certainty = Certainty::possible;
    Cause cause = Cause::unknown;
    std::int64_t from_ns = 0, to_ns = -1;
    std::int64_t closed_ns = 0;  // from_ns, or when it closed again
    std::int64_t cause_ns = 0;
    std::string resolved_by;
    std::vector<DeadlockMember> members;
    std::vector<Weakness> weaknesses;
    std::vector<std::int32_t> suspects;  // settling: pids whose end may have let the first one go on
    bool supposed = false;               // it rested on a wait of somebody who does not record
    ClosingWait wait;
    std::uint32_t times = 1;          // it broke up and closed again
    std::shared_ptr<Deadlock> whole;  // of which it is what is left; the others went on

    bool simple() const;  // one ring, each waits for one other
    void clear() { *this = Deadlock{}; }
};

// Looks at the Model as it is now; members begin with the smallest pid and follow the ring.
std::vector<DeadlockMember> describe_members(const Model &model, const WaitGraph &graph,
                                             const std::vector<Index> &threads);
// `lost`: events are missing, so that none of it is certain.
Finding deadlock_finding(const Model &model, const Deadlock &deadlock, std::int64_t from_utc_ns);

}  // namespace planloop::analysis

#endif
