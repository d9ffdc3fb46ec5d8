#include "analysis/range_map.h"

#include <algorithm>

namespace planloop::analysis {

std::size_t RangeMap::first_reaching(std::uint64_t byte) const noexcept {
    const auto at = std::lower_bound(segments_.begin(), segments_.end(), byte,
                                     [](const Segment &segment, std::uint64_t value) { return segment.last < value; });
    return static_cast<std::size_t>(at - segments_.begin());
}

void RangeMap::cut(std::uint64_t first, std::uint64_t last, std::vector<Segment> &removed, std::vector<Segment> &kept) {
    const std::size_t begin = first_reaching(first);
    std::size_t end = begin;
    while (end < segments_.size() && segments_[end].first <= last) ++end;
    if (begin == end) return;
    const std::size_t kept_before = kept.size();
    const Segment front = segments_[begin];
    const Segment back = segments_[end - 1];
    removed.insert(removed.end(), segments_.begin() + static_cast<std::ptrdiff_t>(begin),
                   segments_.begin() + static_cast<std::ptrdiff_t>(end));
    if (front.first < first) kept.push_back({front.first, first - 1, front.hold});
    if (back.last > last) kept.push_back({last + 1, back.last, back.hold});
    const auto at = segments_.erase(segments_.begin() + static_cast<std::ptrdiff_t>(begin),
                                    segments_.begin() + static_cast<std::ptrdiff_t>(end));
    segments_.insert(at, kept.begin() + static_cast<std::ptrdiff_t>(kept_before), kept.end());
}

void RangeMap::insert(const Segment &segment) {
    segments_.insert(segments_.begin() + static_cast<std::ptrdiff_t>(first_reaching(segment.first)), segment);
}

}  // namespace planloop::analysis
