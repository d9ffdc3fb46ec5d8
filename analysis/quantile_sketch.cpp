#include "analysis/quantile_sketch.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace planloop::analysis {
namespace {

constexpr std::uint32_t kSubBits = 6;
constexpr std::uint32_t kSub = 1u << kSubBits;
constexpr std::uint32_t kMostCounted = std::numeric_limits<std::uint32_t>::max();

// Values below 64 have a bucket each; above, the highest bit and the six that follow name the bucket.
std::uint32_t bucket_of(std::uint64_t value) noexcept {
    if (value < kSub) return static_cast<std::uint32_t>(value);
    const auto shift = static_cast<std::uint32_t>(std::bit_width(value)) - 1 - kSubBits;
    return (shift + 1) * kSub + static_cast<std::uint32_t>((value >> shift) - kSub);
}

std::uint64_t middle_of(std::uint32_t bucket) noexcept {
    if (bucket < kSub) return bucket;
    const std::uint32_t shift = bucket / kSub - 1;
    const std::uint64_t low = (std::uint64_t{kSub} + bucket % kSub) << shift;
    return low + (std::uint64_t{1} << shift) / 2;
}

}  // namespace

void QuantileSketch::add(std::int64_t ns) {
    ns = std::max<std::int64_t>(ns, 0);
    min_ = count_ == 0 ? ns : std::min(min_, ns);
    max_ = std::max(max_, ns);
    ++count_;
    total_ += ns;
    const std::uint32_t number = bucket_of(static_cast<std::uint64_t>(ns));
    if (latest_ < buckets_.size() && buckets_[latest_].number == number && buckets_[latest_].count < kMostCounted) {
        ++buckets_[latest_].count;
        return;
    }
    auto at = std::lower_bound(buckets_.begin(), buckets_.end(), number,
                               [](const Bucket &bucket, std::uint32_t wanted) { return bucket.number < wanted; });
    if (at == buckets_.end() || at->number != number) at = buckets_.insert(at, Bucket{number, 0});
    if (at->count != kMostCounted) ++at->count;
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
