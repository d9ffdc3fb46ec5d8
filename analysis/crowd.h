// A crowd: requests of one lock that ask for the same, wait in the same way, and so have the same in their way. One
// request, the leader, which nobody made, waits in their stead: it is what stands among the waiters of the domain,
// so a change of holds costs one waiter and not all of them.
//
// What the leader waited is told to its members when they leave, as differences of running sums: a member remembers
// what the sums were when it came. Whom a wait is charged to goes into Culprits' sums at once, times the members there
// are. Who stood in the way of one member, thread by thread, is put together from pieces only when it is asked for:
// each piece knows the newest member that was there, and a member takes those from its own on. Nanoseconds are as exact
// as those of requests that wait alone.
//
// Alone wait: tries, who has a part of the lock already, and whom others wait for (its own wait is a part of theirs).
// A member that becomes such a one leaves the crowd in the state in which it would be, had it been alone.
//
// Cost: to join or leave log n of the members, and a move of those behind it; a charge, the same. Memory: members,
// pieces (merged whenever they have doubled, so members times threads that held the lock at the worst), and whom the
// crowd was charged to. A crowd ends with its last member.
//
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_CROWD_H
#define PLANLOOP_ANALYSIS_CROWD_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "analysis/flat_map.h"

namespace planloop::analysis {

// A queue of members by number: most leave it at its front.
class CrowdMembers {
  public:
    struct Member {
        std::uint64_t number;  // in the order in which they came, from 1
        Index request;
    };

    bool empty() const noexcept { return first_ == all_.size(); }
    std::size_t size() const noexcept { return all_.size() - first_; }
    auto begin() const noexcept { return all_.begin() + static_cast<std::ptrdiff_t>(first_); }
    auto end() const noexcept { return all_.end(); }
    const Member &operator[](std::size_t place) const noexcept { return all_[first_ + place]; }
    const Member &front() const noexcept { return all_[first_]; }
    const Member &back() const noexcept { return all_.back(); }
    void push_back(const Member &member) { all_.push_back(member); }
    void erase(std::size_t place) {
        if (place != 0) {
            all_.erase(begin() + static_cast<std::ptrdiff_t>(place));
        } else if (2 * ++first_ >= all_.size()) {
            all_.erase(all_.begin(), begin());
            first_ = 0;
        }
    }
    void clear() noexcept {
        all_.clear();
        first_ = 0;
    }

  private:
    std::vector<Member> all_;
    std::size_t first_ = 0;  // those before it have left
};

struct Crowd {
    using Member = CrowdMembers::Member;
    struct Piece {             // of the time that a thread stood in the way
        std::uint64_t newest;  // member at that time
        std::int32_t pid, tid;
        std::uint32_t image;
        std::uint64_t entry;
        std::int64_t ns;
        std::int64_t until_ns;  // when it ceased to; 0: later
    };

    Index leader = kNone;  // Request
    CrowdMembers members;
    std::vector<Index> not_looked_at;  // members that nothing has stood in the way of yet
    FlatMap owners;                    // how many members each has
    std::uint64_t newest = 0;          // number
    std::int64_t told_to_ns = 0;       // pieces and blocked_ns are complete up to here
    std::int64_t blocked_ns = 0;       // something stood in the way
    std::vector<Piece> pieces;
    std::size_t first_piece = 0;  // of those that anybody still needs
    std::size_t merge_at = 256;   // number of pieces

    // Culprits' own.
    std::int64_t charged_ns = 0;
    Index latest = kNone;  // culprit
    struct Charged {       // a culprit, or a group of culprits
        std::uint64_t key;
        std::uint64_t up_to = 0;                  // the newest member that is known to have been charged to it
        std::array<Index, 3> groups = kNoGroups;  // of a culprit: their places
    };
    static constexpr std::array<Index, 3> kNoGroups{kNone, kNone, kNone};
    std::vector<Charged> charged;
    FlatMap places;  // of keys in it

    Index place_of_key(std::uint64_t key) {
        const Index place = places.at(key, static_cast<Index>(charged.size()));
        if (place == charged.size()) charged.push_back({key});
        return place;
    }
    // How many members are charged to it for the first time now.
    std::uint64_t newly_charged(Index place) {
        const std::uint64_t known = std::exchange(charged[place].up_to, newest);
        if (known >= members.back().number) return 0;
        // Mostly all of them, or the one that came last.
        if (known < members.front().number) return members.size();
        if (known >= members[members.size() - 2].number) return 1;
        return members.size() - place_of(known + 1);
    }
    std::size_t place_of(std::uint64_t number) const;  // among the members
    void clear();
};

}  // namespace planloop::analysis

#endif
