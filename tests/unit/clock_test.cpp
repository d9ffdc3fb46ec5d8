#include "lockcore/clock.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lockcore/wire/ticks.h"

namespace planloop {
namespace {

using wire::Calibration;
using wire::ClockKind;

constexpr std::uint64_t kUtc = 1'795'334'402'350'123'456;  // 2026-11-22T08:00:02.350123456Z

TEST(Utc, IsWrittenWithNanosecondsAndZ) {
    const struct {
        std::int64_t ns;
        const char *text;
    } cases[] = {
        {static_cast<std::int64_t>(kUtc), "2026-11-22T08:00:02.350123456Z"},
        {0, "1970-01-01T00:00:00.000000000Z"},
        {1, "1970-01-01T00:00:00.000000001Z"},
        {951'782'399'999'999'999, "2000-02-28T23:59:59.999999999Z"},
        {951'782'400'000'000'000, "2000-02-29T00:00:00.000000000Z"},
        {4'107'542'400'000'000'000, "2100-03-01T00:00:00.000000000Z"},
        {-5, "1970-01-01T00:00:00.000000000Z"},
    };
    for (const auto &item : cases) EXPECT_EQ(format_utc(item.ns), item.text);
}

TEST(Utc, ReadsWhatProgramsWrite) {
    const std::int64_t second = 1'795'334'402'000'000'000;
    const struct {
        const char *text;
        std::int64_t ns;
    } cases[] = {
        {"2026-11-22T08:00:02Z", second},
        {"2026-11-22T08:00:02.350123456Z", static_cast<std::int64_t>(kUtc)},
        {"2026-11-22T08:00:02.35Z", second + 350'000'000},
        {"2026-11-22T08:00:02.3501234569Z", static_cast<std::int64_t>(kUtc)},
        {"2026-11-22T08:00:02.350123+00:00", second + 350'123'000},
        {"2026-11-22T09:30:02+01:30", second},
        {"2026-11-22T00:00:02-0800", second},
        {"2026-11-22 08:00:02", second},
        {"2026-11-22T07:59:62Z", -1},
        {"2026-02-29T08:00:02Z", -1},
        {"2026-13-01T08:00:02Z", -1},
        {"2026-11-22T24:00:02Z", -1},
        {"2026-11-22T08:00:02.Z", -1},
        {"2026-11-22T08:00:02Zx", -1},
        {"2026-11-22", -1},
        {"1969-12-31T23:59:59Z", -1},
        {"1970-01-01T00:00:00+01:00", -1},
        {"9999-11-22T08:00:02Z", -1},
        {"", -1},
    };
    for (const auto &item : cases) {
        const auto parsed = parse_utc(item.text);
        EXPECT_EQ(parsed.value_or(-1), item.ns) << item.text;
    }
}

TEST(Utc, ReadsBackWhatItWrote) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    std::uniform_int_distribution<std::int64_t> any(0, parse_utc("2261-12-31T23:59:59Z").value());
    for (int i = 0; i < 10'000; ++i) {
        const std::int64_t ns = any(random);
        ASSERT_EQ(parse_utc(format_utc(ns)), ns);
    }
}

TEST(Utc, CompactFormsServeNames) {
    EXPECT_EQ(compact_utc(static_cast<std::int64_t>(kUtc), true), "20261122T080002Z");
    EXPECT_EQ(compact_utc(static_cast<std::int64_t>(kUtc), false), "20261122080002");
}

TEST(SpoolClock, MonotonicTicksAreNanoseconds) {
    const SpoolClock clock(ClockKind::monotonic, {5'000, 5'000, kUtc});
    EXPECT_EQ(clock.utc_ns(5'000), static_cast<std::int64_t>(kUtc));
    EXPECT_EQ(clock.utc_ns(5'123), static_cast<std::int64_t>(kUtc) + 123);
    EXPECT_EQ(clock.utc_ns(4'999), static_cast<std::int64_t>(kUtc) - 1);
    EXPECT_EQ(clock.interval_ns(ClockKind::monotonic, 10, 25), 15);
    EXPECT_EQ(clock.interval_ns(ClockKind::monotonic, 25, 10), 0);
    EXPECT_TRUE(clock.known_rate());
}

TEST(SpoolClock, TakesTheRateFromTheCalibrationsFurthestApart) {
    SpoolClock clock(ClockKind::tsc, {1'000, 0, kUtc});
    EXPECT_FALSE(clock.known_rate());
    clock.add(ClockKind::tsc, {1'000 + 2'900, 1'000, kUtc + 1'000});  // 2.9 ticks a nanosecond
    clock.add(ClockKind::tsc,
              {1'000 + 3'000'000'000, 1'000'000'000, kUtc + 77'777});  // 3, and a wall clock that was set
    clock.add(ClockKind::tsc, {1'000 + 29'000, 10'000, kUtc});
    EXPECT_TRUE(clock.known_rate());
    EXPECT_NEAR(static_cast<double>(clock.utc_ns(1'000 + 3'600'000'000'000)) - static_cast<double>(kUtc),
                1'200'000'000'000.0, 1'000.0);
    EXPECT_NEAR(static_cast<double>(clock.interval_ns(ClockKind::tsc, 500, 500 + 3'000)), 1'000, 1);
}

TEST(SpoolClock, IgnoresCalibrationsThatCannotBeTrue) {
    SpoolClock clock(ClockKind::tsc, {1'000, 1'000, kUtc});
    clock.add(ClockKind::tsc, {1'000, 5'000'000, kUtc});                    // a counter that stands still
    clock.add(ClockKind::tsc, {2'000'000, 1'000, kUtc});                    // a clock that stands still
    clock.add(ClockKind::tsc, {500, 5'000'000, kUtc});                      // running backwards
    clock.add(ClockKind::tsc, {2'000, ~std::uint64_t{0}, kUtc});            // 500 years
    clock.add(ClockKind::tsc, {1'000'000'000'000, 2'000, kUtc});            // a terahertz
    clock.add(ClockKind::monotonic, {4'000'000'000, 4'000'000'000, kUtc});  // another clock
    EXPECT_FALSE(clock.known_rate());
    clock.add(ClockKind::tsc, {1'000 + 2'000'000, 1'000 + 1'000'000, kUtc});
    EXPECT_TRUE(clock.known_rate());
    EXPECT_NEAR(static_cast<double>(clock.interval_ns(ClockKind::tsc, 0, 2'000)), 1'000, 1);
}

TEST(SpoolClock, AStepOfTheWallClockMovesNothing) {
    constexpr std::uint64_t kBorn = 1'800'000'000'000'000'000, kHour = 3'600'000'000'000, kSecond = 1'000'000'000;
    for (const wire::ClockKind kind : {wire::ClockKind::tsc, wire::ClockKind::monotonic}) {
        SpoolClock clock(kind, {0, 0, kBorn});
        clock.add(kind, {kSecond, kSecond, kBorn - kHour});
        clock.add(kind, {2 * kSecond, 2 * kSecond, kBorn + kHour}, true);
        for (std::uint64_t second = 0; second < 4; ++second)
            EXPECT_EQ(clock.utc_ns(second * kSecond), static_cast<std::int64_t>(kBorn + second * kSecond));
    }
}

TEST(SpoolClock, PrefersItsOwnReadingOverThoseOfTheFile) {
    SpoolClock clock(ClockKind::tsc, {0, 0, kUtc});
    clock.add(ClockKind::tsc, {2'000'000, 1'000'000, kUtc}, true);
    clock.add(ClockKind::tsc, {3'000'000'000'000, 1'000'000'000'000, kUtc});
    EXPECT_NEAR(static_cast<double>(clock.interval_ns(ClockKind::tsc, 0, 2'000)), 1'000, 1);
}

TEST(SpoolClock, NeverGoesBackAndNeverOverflows) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 300; ++round) {
        const auto kind = round % 2 == 0 ? ClockKind::tsc : ClockKind::monotonic;
        const auto any = [&] { return random() >> random() % 64; };
        SpoolClock clock(kind, {any(), any(), any()});
        for (int i = 0; i < 5; ++i) clock.add(ClockKind::tsc, {any(), any(), any()}, i == 4);
        const auto chunk_kind = round % 3 == 0 ? ClockKind::tsc : ClockKind::monotonic;
        std::vector<std::uint64_t> ticks{0, ~std::uint64_t{0}};
        for (int i = 0; i < 200; ++i) {
            ticks.push_back(any());
            ticks.push_back(ticks.back() + 1);
        }
        std::sort(ticks.begin(), ticks.end());
        for (std::size_t i = 1; i < ticks.size(); ++i) {
            ASSERT_LE(clock.utc_ns(ticks[i - 1]), clock.utc_ns(ticks[i]));
            ASSERT_LE(clock.to_spool_ticks(chunk_kind, ticks[i - 1]), clock.to_spool_ticks(chunk_kind, ticks[i]));
            ASSERT_GE(clock.interval_ns(chunk_kind, ticks[i - 1], ticks[i]), 0);
        }
        ASSERT_GE(clock.utc_ns(0), 0);
    }
}

TEST(SpoolClock, BringsAnotherClocksChunksOntoItsOwn) {
    SpoolClock counter(ClockKind::tsc, {1'000'000, 500, kUtc});
    counter.add(ClockKind::tsc, {1'000'000 + 3'000'000'000, 500 + 1'000'000'000, kUtc});
    const std::uint64_t ticks = counter.to_spool_ticks(ClockKind::monotonic, 500 + 1'000'000);
    EXPECT_NEAR(static_cast<double>(ticks), 1'000'000 + 3'000'000, 2);
    EXPECT_NEAR(static_cast<double>(counter.utc_ns(ticks) - static_cast<std::int64_t>(kUtc)), 1'000'000, 2);

    SpoolClock plain(ClockKind::monotonic, {500, 500, kUtc});
    plain.add(ClockKind::tsc, {9'000'000, 700, kUtc});
    plain.add(ClockKind::tsc, {9'000'000 + 2'000'000'000, 700 + 1'000'000'000, kUtc});
    EXPECT_NEAR(static_cast<double>(plain.to_spool_ticks(ClockKind::tsc, 9'000'000 + 2'000)), 1'700, 2);
}

TEST(SpoolClock, AgreesWithTheMachinesOwnClocks) {
    for (const ClockKind kind : {ClockKind::tsc, ClockKind::monotonic}) {
        if (kind == ClockKind::tsc && wire::detect_clock() != kind) continue;  // no invariant counter here
        const auto first = calibrate_now(kind);
        SpoolClock clock(kind, *first);
        std::optional<Calibration> last = calibrate_now(kind);
        while (last->monotonic_ns - first->monotonic_ns < 20'000'000) last = calibrate_now(kind);
        clock.add(kind, *last, true);
        const auto middle = calibrate_now(kind);
        const auto expected = static_cast<double>(middle->monotonic_ns - first->monotonic_ns);
        EXPECT_NEAR(static_cast<double>(clock.utc_ns(middle->ticks)) - static_cast<double>(first->utc_ns), expected,
                    expected / 100);
    }
}

TEST(BootId, IsTheSameTwice) {
    EXPECT_EQ(boot_id(), boot_id());
}

}  // namespace
}  // namespace planloop
