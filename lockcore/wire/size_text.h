// Sizes as people write them: 65536, 64K, 2G. For the preloaded library's environment and the command
// line alike, so libc only. Pure; async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_WIRE_SIZE_TEXT_H
#define PLANLOOP_LOCKCORE_WIRE_SIZE_TEXT_H

#include <cstdint>

namespace planloop::wire {

// Digits, then perhaps one of K M G T (powers of 1024; small letters too) and perhaps B or iB. False: not such a text,
// or more than fits.
constexpr bool parse_size(const char *text, std::uint64_t &bytes) noexcept {
    std::uint64_t value = 0;
    if (*text < '0' || *text > '9') return false;
    for (; *text >= '0' && *text <= '9'; ++text) {
        const auto digit = static_cast<std::uint64_t>(*text - '0');
        if (value > (~std::uint64_t{0} - digit) / 10) return false;
        value = value * 10 + digit;
    }
    constexpr char kUnits[] = "KMGTkmgt";
    for (unsigned i = 0; i < 8; ++i) {
        if (*text != kUnits[i]) continue;
        const unsigned shift = 10 * (i % 4 + 1);
        if (value > ~std::uint64_t{0} >> shift) return false;
        value <<= shift;
        ++text;
        if (*text == 'i') ++text;
        break;
    }
    if (*text == 'B') ++text;
    if (*text != '\0') return false;
    bytes = value;
    return true;
}

}  // namespace planloop::wire

#endif
