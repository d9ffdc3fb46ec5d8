// Quantiles of durations in bounded memory: counts in logarithmic buckets (64 for each power of two), so a quantile is
// off by at most kQuantileError of its value, while count, total and maximum are exact. A sketch of n values uses at
// most min(n, 3,800) buckets of 8 bytes; values are nanoseconds, negative ones count as 0.
//
// Threads: externally synchronised. Allocates only for a bucket seen the first time.
#ifndef PLANLOOP_ANALYSIS_QUANTILE_SKETCH_H
#define PLANLOOP_ANALYSIS_QUANTILE_SKETCH_H

#include <cstdint>
#include <vector>

#include "analysis/report.h"

namespace planloop::analysis {

class QuantileSketch {
  public:
    void add(std::int64_t ns);
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
    std::vector<Bucket> buckets_;  // by number
    std::size_t latest_ = 0;       // place of the one that was counted last: durations repeat
    std::uint64_t count_ = 0;
    std::int64_t total_ = 0, min_ = 0, max_ = 0;
};

}  // namespace planloop::analysis

#endif
