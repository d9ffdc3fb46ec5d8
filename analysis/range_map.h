// The byte ranges that one owner has locked in one file, kept as the kernel keeps them (fs/locks.c,
// posix_lock_inode): they never overlap, a new lock replaces what it covers, an unlock cuts a hole. Unlike the
// kernel's, neighbours of one mode are not merged: each range remembers the lock call it came from, and what a later
// call leaves of it stays with that call.
//
// Bounds are inclusive; the largest offset stands for "to the end of the file". Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_RANGE_MAP_H
#define PLANLOOP_ANALYSIS_RANGE_MAP_H

#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "analysis/flat_map.h"

namespace planloop::analysis {

inline constexpr std::uint64_t kEndOfFile = std::numeric_limits<std::uint64_t>::max();

// Last byte of the range that starts at `start`; length 0 goes to the end of the file.
constexpr std::uint64_t last_byte(std::uint64_t start, std::uint64_t len) noexcept {
    return len == 0 || start > kEndOfFile - (len - 1) ? kEndOfFile : start + (len - 1);
}

class RangeMap {
  public:
    struct Segment {
        std::uint64_t first, last;
        Index hold;
    };

    // Takes [first, last] out. Segments it touches are appended to `removed`, what is left of them to `kept`.
    void cut(std::uint64_t first, std::uint64_t last, std::vector<Segment> &removed, std::vector<Segment> &kept);
    // Puts a segment where nothing is (cut first).
    void insert(const Segment &segment);
    // Owners that may hold the same thing several times over (a recursive mutex) stack their holds.
    void push(const Segment &segment) { segments_.push_back(segment); }
    void remove_at(std::size_t position) { segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(position)); }

    const std::vector<Segment> &segments() const noexcept { return segments_; }
    bool empty() const noexcept { return segments_.empty(); }
    void clear() noexcept { segments_.clear(); }

    template <class Visit>
    void for_overlaps(std::uint64_t first, std::uint64_t last, Visit visit) const {
        for (std::size_t at = first_reaching(first); at < segments_.size() && segments_[at].first <= last; ++at)
            visit(segments_[at]);
    }

  private:
    std::size_t first_reaching(std::uint64_t byte) const noexcept;  // first segment that ends at `byte` or later
    std::vector<Segment> segments_;
};

}  // namespace planloop::analysis

#endif
