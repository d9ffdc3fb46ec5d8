#include "analysis/render/escape.h"

#include <fmt/format.h>

#include <cstdint>
#include <iterator>

namespace planloop::analysis {
namespace {

struct Decoded {
    std::size_t bytes;    // how many belong together, valid or not; at least 1
    std::uint32_t point;  // code point; kInvalid
};
constexpr std::uint32_t kInvalid = 0xffffffff;

// RFC 3629, table 3-7 of the Unicode standard: what the second byte may be depends on the first.
Decoded decode_utf8(std::string_view text) {
    const auto byte = [&](std::size_t i) { return static_cast<std::uint32_t>(static_cast<unsigned char>(text[i])); };
    const std::uint32_t first = byte(0);
    if (first < 0x80) return {1, first};
    if (first < 0xc2 || first > 0xf4) return {1, kInvalid};
    const std::size_t length = first < 0xe0 ? 2 : first < 0xf0 ? 3 : 4;
    std::uint32_t low = 0x80;
    std::uint32_t high = 0xbf;
    if (first == 0xe0) low = 0xa0;
    if (first == 0xed) high = 0x9f;
    if (first == 0xf0) low = 0x90;
    if (first == 0xf4) high = 0x8f;
    std::uint32_t point = first & (0xffu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
        if (i >= text.size() || byte(i) < low || byte(i) > high) return {i, kInvalid};
        point = point << 6 | (byte(i) & 0x3f);
        low = 0x80;
        high = 0xbf;
    }
    return {length, point};
}

bool moves_or_reorders(std::uint32_t point) {
    return point < 0x20 || (point >= 0x7f && point < 0xa0) || point == 0x200e || point == 0x200f || point == 0x061c ||
           (point >= 0x2028 && point <= 0x202e) || (point >= 0x2066 && point <= 0x2069);
}

// Escapes of one letter; 0: none.
char short_escape(std::uint32_t point) {
    switch (point) {
        case '\n':
            return 'n';
        case '\t':
            return 't';
        case '\r':
            return 'r';
        default:
            return 0;
    }
}

}  // namespace

void append_terminal_text(std::string &out, std::string_view text) {
    while (!text.empty()) {
        const Decoded next = decode_utf8(text);
        if (next.point == kInvalid) {
            for (std::size_t i = 0; i < next.bytes; ++i) {
                fmt::format_to(std::back_inserter(out), "\\x{:02x}", static_cast<unsigned char>(text[i]));
            }
        } else if (!moves_or_reorders(next.point)) {
            out.append(text.substr(0, next.bytes));
        } else if (const char letter = short_escape(next.point)) {
            out.push_back('\\');
            out.push_back(letter);
        } else if (next.point < 0x80) {
            fmt::format_to(std::back_inserter(out), "\\x{:02x}", next.point);
        } else {
            fmt::format_to(std::back_inserter(out), "\\u{{{:04x}}}", next.point);
        }
        text.remove_prefix(next.bytes);
    }
}

std::string terminal_text(std::string_view text) {
    std::string out;
    out.reserve(text.size());
    append_terminal_text(out, text);
    return out;
}

std::size_t display_width(std::string_view text) {
    std::size_t width = 0;
    for (const char c : text) width += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
    return width;
}

}  // namespace planloop::analysis
