#include "analysis/quantile_sketch.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iostream>
#include <limits>
#include <random>
#include <vector>

namespace planloop::analysis {
namespace {

TEST(QuantileSketch, IsExactForOneValueAndZeroForNone) {
    QuantileSketch sketch;
    EXPECT_EQ(sketch.distribution().p99, 0);
    sketch.add(1'234'567'891);
    const Distribution one = sketch.distribution();
    EXPECT_EQ(one.total, 1'234'567'891);
    EXPECT_EQ(one.max, 1'234'567'891);
    EXPECT_EQ(one.p50, 1'234'567'891);
    EXPECT_EQ(one.p99, 1'234'567'891);
}

TEST(QuantileSketch, IsOffByOnePercentAtMost) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937_64 random(seed);
    std::lognormal_distribution<double> values(10, 4);
    QuantileSketch sketch;
    std::vector<std::int64_t> all;
    for (int i = 0; i < 50'000; ++i) {
        const auto value = static_cast<std::int64_t>(std::min(values(random), 1e17));
        sketch.add(value);
        all.push_back(value);
    }
    std::sort(all.begin(), all.end());
    for (const double q : {0.01, 0.1, 0.5, 0.9, 0.99, 0.999, 1.0}) {
        const auto rank = static_cast<std::size_t>(std::ceil(q * static_cast<double>(all.size()))) - 1;
        const auto exact = static_cast<double>(all[rank]);
        EXPECT_NEAR(static_cast<double>(sketch.quantile(q)), exact, exact * 0.01) << "q " << q << " seed " << seed;
    }
    EXPECT_EQ(sketch.distribution().max, all.back());
}

TEST(QuantileSketch, CountsNegativeDurationsAsZero) {
    QuantileSketch sketch;
    sketch.add(-5);
    EXPECT_EQ(sketch.total(), 0);
    EXPECT_EQ(sketch.count(), 1u);
}

TEST(QuantileSketch, SumOfDurationsFromADamagedRecordingStopsAtTheEnd) {
    QuantileSketch sketch;
    for (int i = 0; i < 3; ++i) sketch.add(std::numeric_limits<std::int64_t>::max() / 2 + 2);
    EXPECT_EQ(sketch.total(), std::numeric_limits<std::int64_t>::max());
    EXPECT_GT(sketch.distribution().mean, 0);
}

}  // namespace
}  // namespace planloop::analysis
