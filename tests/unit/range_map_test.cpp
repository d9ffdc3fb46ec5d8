#include "analysis/range_map.h"

#include <gtest/gtest.h>

#include <array>
#include <iostream>
#include <random>

namespace planloop::analysis {
namespace {

TEST(RangeMap, LengthZeroAndOverflowReachTheEndOfTheFile) {
    EXPECT_EQ(last_byte(5, 0), kEndOfFile);
    EXPECT_EQ(last_byte(5, 1), 5u);
    EXPECT_EQ(last_byte(5, kEndOfFile), kEndOfFile);
    EXPECT_EQ(last_byte(0, 10), 9u);
}

TEST(RangeMap, CutInTheMiddleLeavesTwoPartsOfOneHold) {
    RangeMap map;
    map.insert({0, kEndOfFile, 1});
    std::vector<RangeMap::Segment> removed, kept;
    map.cut(10, 19, removed, kept);
    ASSERT_EQ(map.segments().size(), 2u);
    EXPECT_EQ(map.segments()[0].last, 9u);
    EXPECT_EQ(map.segments()[1].first, 20u);
    EXPECT_EQ(map.segments()[1].last, kEndOfFile);
    EXPECT_EQ(removed.size(), 1u);
    EXPECT_EQ(kept.size(), 2u);
}

// Against one hold number for each byte of a short file.
TEST(RangeMap, AgreesWithAModelThatKnowsEachByte) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 random(seed);
    constexpr std::uint64_t kBytes = 48;
    RangeMap map;
    std::array<Index, kBytes> bytes;
    bytes.fill(kNone);
    for (Index step = 0; step < 20'000; ++step) {
        std::uint64_t first = random() % kBytes, last = random() % kBytes;
        if (first > last) std::swap(first, last);
        std::vector<RangeMap::Segment> removed, kept;
        map.cut(first, last, removed, kept);
        const bool locks = random() % 3 != 0;
        if (locks) map.insert({first, last, step});
        for (std::uint64_t byte = first; byte <= last; ++byte) bytes[byte] = locks ? step : kNone;

        std::array<Index, kBytes> told;
        told.fill(kNone);
        std::uint64_t next = 0;
        for (const RangeMap::Segment &segment : map.segments()) {
            ASSERT_LE(next, segment.first) << "segments overlap or are out of order, seed " << seed;
            ASSERT_LE(segment.first, segment.last);
            for (std::uint64_t byte = segment.first; byte <= segment.last; ++byte) told[byte] = segment.hold;
            next = segment.last + 1;
        }
        ASSERT_EQ(told, bytes) << "seed " << seed << " step " << step;

        std::uint64_t a = random() % kBytes, b = random() % kBytes;
        if (a > b) std::swap(a, b);
        bool overlaps = false, model_overlaps = false;
        map.for_overlaps(a, b, [&](const RangeMap::Segment &) { overlaps = true; });
        for (std::uint64_t byte = a; byte <= b; ++byte) model_overlaps = model_overlaps || bytes[byte] != kNone;
        ASSERT_EQ(overlaps, model_overlaps) << "seed " << seed;
    }
}

}  // namespace
}  // namespace planloop::analysis
