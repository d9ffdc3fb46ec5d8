// Until when a wait may last, from what callers of try_lock_for() and try_lock_until() pass: any duration, any clock.
//
// What lies 95 years ahead or further, hours::max() included, is for ever: kNoDeadline. What lies in the past is now.
// A time by another clock than the steady one is translated once, at the call; that clock's later jumps do not matter.
// Never early: what is finer than the steady clock is rounded up.
//
// Threads, signals: no state. Errors: none; no argument overflows.
#ifndef PLANLOOP_LOCKCORE_DEADLINE_H
#define PLANLOOP_LOCKCORE_DEADLINE_H

#include <chrono>
#include <type_traits>

namespace planloop {

using SteadyClock = std::chrono::steady_clock;

inline constexpr SteadyClock::time_point kNoDeadline = SteadyClock::time_point::max();

namespace deadline {
using Seconds = std::chrono::duration<double>;
inline constexpr Seconds kForEver{3e9};
}  // namespace deadline

template <class Rep, class Period>
SteadyClock::time_point deadline_after(const std::chrono::duration<Rep, Period> &wait) {
    const deadline::Seconds roughly(wait);
    if (roughly >= deadline::kForEver) return kNoDeadline;
    if (!(roughly > deadline::Seconds::zero())) return SteadyClock::now();
    return SteadyClock::now() + std::chrono::ceil<SteadyClock::duration>(wait);
}

template <class Clock, class Duration>
SteadyClock::time_point deadline_at(const std::chrono::time_point<Clock, Duration> &when) {
    const auto now = Clock::now();
    const auto roughly = deadline::Seconds(when.time_since_epoch()) - deadline::Seconds(now.time_since_epoch());
    if (roughly >= deadline::kForEver) return kNoDeadline;
    if (roughly < std::chrono::seconds(-1)) return SteadyClock::now();
    if constexpr (std::is_same_v<Clock, SteadyClock>) {
        return std::chrono::ceil<SteadyClock::duration>(when);
    } else {
        return SteadyClock::now() + std::chrono::ceil<SteadyClock::duration>(when - now);
    }
}

}  // namespace planloop

#endif
