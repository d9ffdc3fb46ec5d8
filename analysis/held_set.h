// What a thread holds at the moment it asks for more, in values that stay true afterwards: the material of lock order.
//
// A thread holds what it took itself. It also holds what it inherited in an open file description, when who took it is
// gone or is an ancestor: `flock a flock b` asks for b in a child of the process that took a.
#ifndef PLANLOOP_ANALYSIS_HELD_SET_H
#define PLANLOOP_ANALYSIS_HELD_SET_H

#include <cstdint>
#include <vector>

#include "analysis/model.h"

namespace planloop::analysis {

// A lock, or a range of one, that somebody holds or wants.
struct LockPart {
    Index lock = kNone, domain = kNone;
    wire::Family family{};
    wire::Mode mode{};
    std::uint64_t first = 0, last = 0;
    std::uint64_t owner = 0;  // equal for the same owner only; never used again while it matters
    bool borrowed = false;    // taken by an ancestor that may let go by itself
    std::uint32_t site = 0;   // of the call that took it, or asks for it

    bool overlaps(const LockPart &other) const {
        return domain == other.domain && first <= other.last && other.first <= last;
    }
    bool excludes(const LockPart &other) const {
        return overlaps(other) && owner != other.owner && exclude(mode, other.mode);
    }
};

// What the request asks for. Its owner must be known.
LockPart wanted_part(const Model &model, const Request &request);
// Appends what the request's thread holds, at most `most` parts.
void held_parts(const Model &model, const Request &request, std::size_t most, std::vector<LockPart> &out);

}  // namespace planloop::analysis

#endif
