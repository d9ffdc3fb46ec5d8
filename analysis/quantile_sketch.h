// Quantiles of durations in bounded memory: counts in logarithmic buckets (64 for each power of two), so a quantile is
// off by at most kQuantileError of its value, while count, total and maximum are exact. A sketch of n values uses at
// most min(n, 3,800) buckets of 8 bytes; values are nanoseconds, negative ones count as 0.
//
// Threads: externally synchronised. Allocates only for a bucket seen the first time.
#ifndef PLANLOOP_ANALYSIS_QUANTILE_SKETCH_H
#define PLANLOOP_ANALYSIS_QUANTILE_SKETCH_H

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <vector>

#include "analysis/report.h"
#include "analysis/saturate.h"

namespace planloop::analysis {

class QuantileSketch {
  public:
    void add(std::int64_t ns) {
        ns = std::max<std::int64_t>(ns, 0);
        min_ = std::min(min_, ns);
        max_ = std::max(max_, ns);
        ++count_;
        add_saturated(total_, ns);
        const std::uint32_t number = bucket_of(static_cast<std::uint64_t>(ns));
        if (latest_ == buckets_.size() || buckets_[latest_].number != number) find(number);
        if (buckets_[latest_].count != kMostCounted) ++buckets_[latest_].count;
    }
    std::uint64_t count() const noexcept { return count_; }
    std::int64_t total() const noexcept { return total_; }
    // The value that a share `q` (0 to 1) of the values does not exceed; 0 when there is none.
    std::int64_t quantile(double q) const;
    Distribution distribution() const;

  private:
    struct Bucket {
        std::uint32_t number;
        std::uint32_t count;
    };
    static constexpr std::uint32_t kSubBits = 6;
    static constexpr std::uint32_t kSub = 1u << kSubBits;
    static constexpr std::uint32_t kMostCounted = std::numeric_limits<std::uint32_t>::max();

    // Values below 64 have a bucket each; above, the highest bit and the six that follow name the bucket.
    static std::uint32_t bucket_of(std::uint64_t value) noexcept {
        if (value < kSub) return static_cast<std::uint32_t>(value);
        const auto shift = static_cast<std::uint32_t>(std::bit_width(value)) - 1 - kSubBits;
        return (shift + 1) * kSub + static_cast<std::uint32_t>((value >> shift) - kSub);
    }
    static std::uint64_t middle_of(std::uint32_t bucket) noexcept;
    void find(std::uint32_t number);

    std::vector<Bucket> buckets_;  // by number
    std::size_t latest_ = 0;       // place of the one that was counted last: durations repeat
    std::uint64_t count_ = 0;
    std::int64_t total_ = 0, min_ = std::numeric_limits<std::int64_t>::max(), max_ = 0;
};

}  // namespace planloop::analysis

#endif
