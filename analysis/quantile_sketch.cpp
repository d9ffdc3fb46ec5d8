#include "analysis/quantile_sketch.h"

#include <algorithm>
#include <cmath>

namespace planloop::analysis {

std::uint64_t QuantileSketch::middle_of(std::uint32_t bucket) noexcept {
    if (bucket < kSub) return bucket;
    const std::uint32_t shift = bucket / kSub - 1;
    const std::uint64_t low = (std::uint64_t{kSub} + bucket % kSub) << shift;
    return low + (std::uint64_t{1} << shift) / 2;
}

// Sets latest_ to the bucket, which is made if there is none.
void QuantileSketch::find(std::uint32_t number) {
    auto at = std::lower_bound(buckets_.begin(), buckets_.end(), number,
                               [](const Bucket &bucket, std::uint32_t wanted) { return bucket.number < wanted; });
    if (at == buckets_.end() || at->number != number) at = buckets_.insert(at, Bucket{number, 0});
    latest_ = static_cast<std::size_t>(at - buckets_.begin());
}

std::int64_t QuantileSketch::quantile(double q) const {
    if (count_ == 0) return 0;
    const auto rank = static_cast<std::uint64_t>(
        std::clamp(std::ceil(q * static_cast<double>(count_)), 1.0, static_cast<double>(count_)));
    std::uint64_t seen = 0;
    for (const Bucket &bucket : buckets_) {
        seen += bucket.count;
        if (seen >= rank) return std::clamp(static_cast<std::int64_t>(middle_of(bucket.number)), min_, max_);
    }
    return max_;
}

Distribution QuantileSketch::distribution() const {
    Distribution made;
    made.total = total_;
    made.max = max_;
    made.p50 = quantile(0.5);
    made.p90 = quantile(0.9);
    made.p99 = quantile(0.99);
    made.mean = count_ == 0 ? 0 : total_ / static_cast<std::int64_t>(count_);
    made.count = count_;
    return made;
}

}  // namespace planloop::analysis
