// The clock of the recorder: the invariant time-stamp counter where there is one (9 ns a read against 20 to 40 for
// clock_gettime), else CLOCK_MONOTONIC. Around a system call a plain rdtsc cannot be reordered far enough to matter:
// 27 million hand-overs between two cores showed no inversion. Around a lock that lives in user space it can.
//
// A process may have been forbidden to read the counter (prctl(2) PR_SET_TSC), so detect_clock() asks first.
// Async-signal-safe, thread-safe, no errno.
#ifndef PLANLOOP_LOCKCORE_WIRE_TICKS_H
#define PLANLOOP_LOCKCORE_WIRE_TICKS_H

#include <linux/prctl.h>
#include <time.h>

#include <cstdint>

#include "lockcore/wire/raw_syscall.h"
#include "lockcore/wire/spool_format.h"

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

namespace planloop::wire {

// clock_gettime is served by the vDSO and fails only for a bad clock or pointer, so errno stays.
inline std::uint64_t clock_ns(clockid_t clock) noexcept {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000u + static_cast<std::uint64_t>(now.tv_nsec);
}

// Enough to ask where somebody found out, in this boot, that the counter is invariant: CPUID leaves a virtual machine,
// which takes 10 us and more each time.
inline bool may_read_counter() noexcept {
#if defined(__x86_64__)
    int allowed = 0;
    return raw_syscall(SYS_prctl, PR_GET_TSC, &allowed, 0, 0, 0) != 0 || allowed == PR_TSC_ENABLE;
#else
    return false;
#endif
}

inline ClockKind detect_clock() noexcept {
#if defined(__x86_64__)
    if (!may_read_counter()) return ClockKind::monotonic;
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    constexpr unsigned kInvariantTsc = 1u << 8;  // CPUID 8000_0007h EDX, AMD APM vol. 3 and Intel SDM vol. 2
    if (__get_cpuid(0x80000007u, &eax, &ebx, &ecx, &edx) != 0 && (edx & kInvariantTsc) != 0) return ClockKind::tsc;
#endif
    return ClockKind::monotonic;
}

inline std::uint64_t read_ticks(ClockKind clock) noexcept {
#if defined(__x86_64__)
    if (__builtin_expect(clock == ClockKind::tsc, 1)) return __rdtsc();
#endif
    static_cast<void>(clock);
    return clock_ns(CLOCK_MONOTONIC);
}

inline Calibration calibrate(ClockKind clock) noexcept {
    // Of three tries the one with the shortest gap between two reads of the counter: a preemption in between would
    // bend the scale.
    Calibration best{};
    std::uint64_t best_gap = ~std::uint64_t{0};
    for (int attempt = 0; attempt < 3; ++attempt) {
        const std::uint64_t before = read_ticks(clock);
        const std::uint64_t monotonic_ns = clock_ns(CLOCK_MONOTONIC);
        const std::uint64_t after = read_ticks(clock);
        if (after - before < best_gap) {
            best_gap = after - before;
            best = {before + (after - before) / 2, monotonic_ns, clock_ns(CLOCK_REALTIME)};
        }
    }
    if (clock == ClockKind::monotonic) best.ticks = best.monotonic_ns;
    return best;
}

}  // namespace planloop::wire

#endif
