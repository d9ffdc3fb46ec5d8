#include "analysis/export/page_text.h"

#include <cstddef>

#include "analysis/render/escape.h"
#include "lockcore/jsonl.h"

namespace planloop::analysis {

std::string html_text(std::string_view text) {
    std::string out;
    for (const char c : terminal_text(text)) {
        switch (c) {
            case '&':
                out += "&amp;";
                break;
            case '<':
                out += "&lt;";
                break;
            case '>':
                out += "&gt;";
                break;
            case '"':
                out += "&quot;";
                break;
            case '\'':
                out += "&#39;";
                break;
            default:
                out.push_back(c);
        }
    }
    return out;
}

void append_script_string(std::string &out, std::string_view text) {
    std::string json;
    append_json_string(json, terminal_text(text));
    for (const char c : json) {
        if (c == '<') {
            out += "\\u003c";
        } else {
            out.push_back(c);
        }
    }
}

void append_base64(std::string &out, std::string_view bytes) {
    static constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const auto byte = [&](std::size_t at) -> std::uint32_t {
        return at < bytes.size() ? static_cast<unsigned char>(bytes[at]) : 0u;
    };
    out.reserve(out.size() + (bytes.size() + 2) / 3 * 4);
    for (std::size_t at = 0; at < bytes.size(); at += 3) {
        const std::uint32_t word = byte(at) << 16 | byte(at + 1) << 8 | byte(at + 2);
        out.push_back(kDigits[word >> 18]);
        out.push_back(kDigits[word >> 12 & 63]);
        out.push_back(at + 1 < bytes.size() ? kDigits[word >> 6 & 63] : '=');
        out.push_back(at + 2 < bytes.size() ? kDigits[word & 63] : '=');
    }
}

void append_varint(std::string &out, std::uint64_t value) {
    for (; value > 127; value >>= 7) out.push_back(static_cast<char>((value & 127) | 128));
    out.push_back(static_cast<char>(value));
}

}  // namespace planloop::analysis
