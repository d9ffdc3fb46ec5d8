// Sums of durations that stop at the end of what their type holds: times in a damaged recording may be anything, and a
// sum that has come round would be told as a wait below zero.
#ifndef PLANLOOP_ANALYSIS_SATURATE_H
#define PLANLOOP_ANALYSIS_SATURATE_H

#include <cstdint>
#include <limits>

namespace planloop::analysis {

constexpr std::int64_t end_towards(bool below) noexcept {
    return below ? std::numeric_limits<std::int64_t>::min() : std::numeric_limits<std::int64_t>::max();
}

constexpr void add_saturated(std::int64_t &sum, std::int64_t ns) noexcept {
    std::int64_t exact = 0;
    sum = __builtin_add_overflow(sum, ns, &exact) ? end_towards(ns < 0) : exact;
}

constexpr std::int64_t times_saturated(std::int64_t ns, std::int64_t times) noexcept {
    std::int64_t exact = 0;
    return __builtin_mul_overflow(ns, times, &exact) ? end_towards((ns < 0) != (times < 0)) : exact;
}

}  // namespace planloop::analysis

#endif
