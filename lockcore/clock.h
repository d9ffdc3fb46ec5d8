// Time of a spool: counter ticks to UTC nanoseconds on one scale that never goes back, and RFC 3339 for people.
//
// Records carry raw ticks (wire::ClockKind) because reading the counter is the cheapest stamp there is; what a tick is
// worth is worked out here, when somebody reads. Two calibrations of one spool give the rate: the header's `created`
// and whichever other is furthest from it. UTC is that of the header plus what the monotonic clock ran since, so a wall
// clock that was set while the session recorded moves nothing.
//
// Units: ticks of the clock named, else nanoseconds. Errors: a calibration that cannot be true is ignored. Threads:
// SpoolClock is externally synchronised, the functions are free of state. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_CLOCK_H
#define PLANLOOP_LOCKCORE_CLOCK_H

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lockcore/wire/spool_format.h"

namespace planloop {

using BootId = std::array<std::uint8_t, 16>;

// Of the running kernel; all zero when it cannot be read.
BootId boot_id();

std::int64_t utc_now_ns();

// One instant on three clocks. Empty when there is no counter or the program may not read it (PR_TSC_SIGSEGV,
// prctl(2)). Whether the counter is invariant, who made a spool of this boot has found out (wire::detect_clock).
std::optional<wire::Calibration> calibrate_now(wire::ClockKind kind);

// `2026-11-22T08:00:02.350123456Z`. Times before 1970 are shown as 1970.
std::string format_utc(std::int64_t utc_ns);
void append_utc(std::string &out, std::int64_t utc_ns);
// Any RFC 3339 time of 1970 to 2261: Z or an offset, up to nine digits of a second. A time without a zone is UTC, as
// Python's isoformat() of a naive time is.
std::optional<std::int64_t> parse_utc(std::string_view text);
// `20261122T080002Z` with separator 'T' and suffix "Z"; `20261122080002` with neither.
std::string compact_utc(std::int64_t utc_ns, bool readable);

class SpoolClock {
  public:
    SpoolClock() = default;
    SpoolClock(wire::ClockKind kind, const wire::Calibration &created);

    // A further calibration of the given clock. A trusted one (taken by the caller, not read from a file) decides.
    void add(wire::ClockKind kind, const wire::Calibration &pair, bool trusted = false);

    wire::ClockKind kind() const noexcept { return kind_; }
    // Whether ticks have a known worth; if not, a tick counts as a nanosecond.
    bool known_rate() const noexcept { return kind_ == wire::ClockKind::monotonic || rate_known_; }

    // A stamp of a chunk, on the spool's own clock: what streams are merged by. Non-decreasing in `ticks`.
    std::uint64_t to_spool_ticks(wire::ClockKind chunk_clock, std::uint64_t ticks) const noexcept {
        return chunk_clock == kind_ ? ticks : from_other_clock(ticks);
    }
    // Non-decreasing in `spool_ticks`; saturates at 0 and at the year 2262.
    std::int64_t utc_ns(std::uint64_t spool_ticks) const noexcept;
    // Length of an interval on a chunk's own clock; 0 when it runs backwards.
    std::int64_t interval_ns(wire::ClockKind chunk_clock, std::uint64_t from, std::uint64_t to) const noexcept;
    std::uint64_t ticks_in(std::int64_t ns) const noexcept {
        if (kind_ == wire::ClockKind::monotonic) return static_cast<std::uint64_t>(ns);
        return static_cast<std::uint64_t>(ticks_of(ns));
    }
    // The stamp that a thread would make now, or nothing when this machine cannot tell.
    std::optional<std::uint64_t> spool_ticks_now() const;

  private:
    std::uint64_t from_other_clock(std::uint64_t ticks) const noexcept;
    void set_rate(std::uint64_t ticks, std::uint64_t ns) noexcept;
    __extension__ typedef __int128 Wide;  // NOLINT(modernize-use-using): -Wpedantic accepts it in this form only
    Wide ns_of(Wide ticks) const noexcept { return (ticks * ns_per_tick_) >> kFraction; }
    Wide ticks_of(Wide ns) const noexcept { return (ns * ticks_per_ns_) >> kFraction; }

    static constexpr int kFraction = 40;  // bits behind the binary point of a rate
    wire::ClockKind kind_ = wire::ClockKind::monotonic;
    wire::Calibration created_{};
    std::optional<wire::Calibration> counter_base_;  // first calibration of the counter
    std::uint64_t baseline_ns_ = 0;                  // how far apart the pair is that the rate comes from
    bool rate_known_ = false;
    bool trusted_ = false;
    std::int64_t ns_per_tick_ = std::int64_t{1} << kFraction;
    std::int64_t ticks_per_ns_ = std::int64_t{1} << kFraction;
};

}  // namespace planloop

#endif
