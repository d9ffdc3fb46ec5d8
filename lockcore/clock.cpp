#include "lockcore/clock.h"

#include <time.h>

#include <cstddef>
#include <limits>

#include "lockcore/wire/spool_writer.h"
#include "lockcore/wire/ticks.h"

namespace planloop {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

bool is_leap(int year) {
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

int days_in_month(int year, int month) {
    constexpr int kDays[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    return kDays[month - 1] + (month == 2 && is_leap(year) ? 1 : 0);
}

std::int64_t days_since_epoch(int year, int month, int day) {
    const auto leap_days_before = [](int y) { return (y - 1) / 4 - (y - 1) / 100 + (y - 1) / 400; };
    std::int64_t days = 365 * (year - 1970) + leap_days_before(year) - leap_days_before(1970);
    for (int m = 1; m < month; ++m) days += days_in_month(year, m);
    return days + day - 1;
}

tm broken_down(std::int64_t utc_ns) {
    const time_t seconds = utc_ns < 0 ? 0 : static_cast<time_t>(utc_ns / kSecondNs);
    tm parts{};
    gmtime_r(&seconds, &parts);
    return parts;
}

void append_number(std::string &out, std::int64_t value, int digits) {
    char text[20];
    for (int i = digits; i-- > 0; value /= 10) text[i] = static_cast<char>('0' + value % 10);
    out.append(text, static_cast<std::size_t>(digits));
}

// A cursor over text; each step tells whether it went well.
struct Scanner {
    std::string_view rest;

    bool literal(char c) {
        if (rest.empty() || rest.front() != c) return false;
        rest.remove_prefix(1);
        return true;
    }
    bool number(int digits, int low, int high, int &value) {
        if (rest.size() < static_cast<std::size_t>(digits)) return false;
        value = 0;
        for (int i = 0; i < digits; ++i) {
            const char c = rest[static_cast<std::size_t>(i)];
            if (c < '0' || c > '9') return false;
            value = value * 10 + (c - '0');
        }
        rest.remove_prefix(static_cast<std::size_t>(digits));
        return value >= low && value <= high;
    }
    bool fraction(std::int64_t &ns) {
        ns = 0;
        if (rest.empty() || (rest.front() != '.' && rest.front() != ',')) return true;
        rest.remove_prefix(1);
        int digits = 0;
        for (; !rest.empty() && rest.front() >= '0' && rest.front() <= '9'; rest.remove_prefix(1), ++digits) {
            if (digits < 9) ns = ns * 10 + (rest.front() - '0');
        }
        for (int i = digits; i < 9; ++i) ns *= 10;
        return digits > 0;
    }
    bool zone(std::int64_t &offset_seconds) {
        offset_seconds = 0;
        if (rest.empty() || rest == "Z" || rest == "z") return true;
        const bool west = rest.front() == '-';
        if (!west && rest.front() != '+') return false;
        rest.remove_prefix(1);
        int hours = 0;
        int minutes = 0;
        if (!number(2, 0, 23, hours)) return false;
        literal(':');
        if (!number(2, 0, 59, minutes) || !rest.empty()) return false;
        offset_seconds = (hours * 60 + minutes) * 60;
        if (west) offset_seconds = -offset_seconds;
        return true;
    }
};

std::uint64_t distance(std::uint64_t a, std::uint64_t b) {
    return a > b ? a - b : b - a;
}

}  // namespace

BootId boot_id() {
    BootId id{};
    std::uint8_t bytes[16] = {};
    if (!wire::read_boot_id(bytes)) return id;
    for (std::size_t i = 0; i < id.size(); ++i) id[i] = bytes[i];
    return id;
}

std::int64_t utc_now_ns() {
    return static_cast<std::int64_t>(wire::clock_ns(CLOCK_REALTIME));
}

std::optional<wire::Calibration> calibrate_now(wire::ClockKind kind) {
    if (kind == wire::ClockKind::tsc && !wire::may_read_counter()) return std::nullopt;
    return wire::calibrate(kind);
}

void append_utc(std::string &out, std::int64_t utc_ns) {
    if (utc_ns < 0) utc_ns = 0;
    // Neighbours in a log mostly share their second.
    thread_local std::int64_t cached_second = -1;
    thread_local std::string cached_text;
    const std::int64_t second = utc_ns / kSecondNs;
    if (second != cached_second) {
        const tm parts = broken_down(utc_ns);
        cached_text.clear();
        append_number(cached_text, parts.tm_year + 1900, 4);
        cached_text += '-';
        append_number(cached_text, parts.tm_mon + 1, 2);
        cached_text += '-';
        append_number(cached_text, parts.tm_mday, 2);
        cached_text += 'T';
        append_number(cached_text, parts.tm_hour, 2);
        cached_text += ':';
        append_number(cached_text, parts.tm_min, 2);
        cached_text += ':';
        append_number(cached_text, parts.tm_sec, 2);
        cached_text += '.';
        cached_second = second;
    }
    out += cached_text;
    append_number(out, utc_ns % kSecondNs, 9);
    out += 'Z';
}

std::string format_utc(std::int64_t utc_ns) {
    std::string out;
    append_utc(out, utc_ns);
    return out;
}

std::string compact_utc(std::int64_t utc_ns, bool readable) {
    const tm parts = broken_down(utc_ns);
    std::string out;
    append_number(out, parts.tm_year + 1900, 4);
    append_number(out, parts.tm_mon + 1, 2);
    append_number(out, parts.tm_mday, 2);
    if (readable) out += 'T';
    append_number(out, parts.tm_hour, 2);
    append_number(out, parts.tm_min, 2);
    append_number(out, parts.tm_sec, 2);
    if (readable) out += 'Z';
    return out;
}

std::optional<std::int64_t> parse_utc(std::string_view text) {
    Scanner in{text};
    int year = 0, month = 0, day = 0, hour = 0, minute = 0, second = 0;
    if (!in.number(4, 1970, 2261, year) || !in.literal('-') || !in.number(2, 1, 12, month) || !in.literal('-') ||
        !in.number(2, 1, days_in_month(year, month), day)) {
        return std::nullopt;
    }
    if (!in.literal('T') && !in.literal('t') && !in.literal(' ')) return std::nullopt;
    // 60: a leap second, taken as the first of the next minute.
    if (!in.number(2, 0, 23, hour) || !in.literal(':') || !in.number(2, 0, 59, minute) || !in.literal(':') ||
        !in.number(2, 0, 60, second)) {
        return std::nullopt;
    }
    std::int64_t ns = 0;
    std::int64_t offset = 0;
    if (!in.fraction(ns) || !in.zone(offset)) return std::nullopt;
    const std::int64_t seconds =
        days_since_epoch(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    if (seconds < 0) return std::nullopt;
    return seconds * kSecondNs + ns;
}

SpoolClock::SpoolClock(wire::ClockKind kind, const wire::Calibration &created) : kind_(kind), created_(created) {
    if (kind == wire::ClockKind::tsc) counter_base_ = created;
}

void SpoolClock::add(wire::ClockKind kind, const wire::Calibration &pair, bool trusted) {
    if (kind != wire::ClockKind::tsc) return;
    if (!counter_base_) {
        counter_base_ = pair;
        return;
    }
    if ((pair.ticks > counter_base_->ticks) != (pair.monotonic_ns > counter_base_->monotonic_ns)) return;
    const std::uint64_t ticks = distance(pair.ticks, counter_base_->ticks);
    const std::uint64_t ns = distance(pair.monotonic_ns, counter_base_->monotonic_ns);
    // No counter is slower than 50 MHz or faster than 20 GHz, and no machine stays up for 2^60 ns.
    if (ticks == 0 || ns == 0 || ns >> 60 != 0 || ticks / 20 > ns || ns / 20 > ticks) return;
    if (trusted_ && (!trusted || ns / 2 < baseline_ns_)) return;
    if (!trusted && ns <= baseline_ns_) return;
    trusted_ = trusted;
    baseline_ns_ = ns;
    set_rate(ticks, ns);
}

void SpoolClock::set_rate(std::uint64_t ticks, std::uint64_t ns) noexcept {
    ns_per_tick_ = static_cast<std::int64_t>((Wide{ns} << kFraction) / ticks);
    ticks_per_ns_ = static_cast<std::int64_t>((Wide{ticks} << kFraction) / ns);
    rate_known_ = true;
}

std::uint64_t SpoolClock::from_other_clock(std::uint64_t ticks) const noexcept {
    Wide result = ticks;
    if (kind_ == wire::ClockKind::tsc) {
        result = created_.ticks + ticks_of(Wide{ticks} - created_.monotonic_ns);
    } else if (counter_base_) {
        result = counter_base_->monotonic_ns + ns_of(Wide{ticks} - counter_base_->ticks);
    }
    constexpr Wide kLargest = std::numeric_limits<std::uint64_t>::max();
    return static_cast<std::uint64_t>(result < 0 ? 0 : result > kLargest ? kLargest : result);
}

std::int64_t SpoolClock::utc_ns(std::uint64_t spool_ticks) const noexcept {
    const Wide elapsed = Wide{spool_ticks} - created_.ticks;
    const Wide utc = created_.utc_ns + (kind_ == wire::ClockKind::tsc ? ns_of(elapsed) : elapsed);
    constexpr Wide kLargest = std::numeric_limits<std::int64_t>::max();
    return static_cast<std::int64_t>(utc < 0 ? 0 : utc > kLargest ? kLargest : utc);
}

std::int64_t SpoolClock::interval_ns(wire::ClockKind chunk_clock, std::uint64_t from, std::uint64_t to) const noexcept {
    if (to <= from) return 0;
    const Wide elapsed = to - from;
    const Wide ns = chunk_clock == wire::ClockKind::tsc ? ns_of(elapsed) : elapsed;
    constexpr Wide kLargest = std::numeric_limits<std::int64_t>::max();
    return static_cast<std::int64_t>(ns > kLargest ? kLargest : ns);
}

std::optional<std::uint64_t> SpoolClock::spool_ticks_now() const {
    const auto now = calibrate_now(kind_);
    if (!now) return std::nullopt;
    return now->ticks;
}

}  // namespace planloop
