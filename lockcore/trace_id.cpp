#include "lockcore/trace_id.h"

#include <sys/random.h>
#include <unistd.h>

#include <cstdlib>

#include "lockcore/clock.h"

namespace planloop {
namespace {

constexpr std::string_view kPrefix = "tr_";
constexpr std::size_t kTimeDigits = 14;
constexpr std::size_t kFewestHexDigits = 6;

bool is_digit(char c) {
    return c >= '0' && c <= '9';
}
bool is_hex(char c) {
    return is_digit(c) || (c >= 'a' && c <= 'f');
}

}  // namespace

std::string make_trace_id(std::int64_t utc_ns, std::uint32_t random) {
    std::string id{kPrefix};
    id += compact_utc(utc_ns, false);
    id += '_';
    for (int shift = 28; shift >= 0; shift -= 4) id += "0123456789abcdef"[random >> shift & 15];
    return id;
}

std::string make_trace_id() {
    const std::int64_t now = utc_now_ns();
    std::uint32_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(random))) {
        random = static_cast<std::uint32_t>(now) ^ static_cast<std::uint32_t>(getpid()) * 0x9e3779b1U;
    }
    return make_trace_id(now, random);
}

bool valid_trace_id(std::string_view id) {
    const std::size_t shortest = kPrefix.size() + kTimeDigits + 1 + kFewestHexDigits;
    if (id.size() < shortest || id.size() > kLongestTraceId || id.substr(0, kPrefix.size()) != kPrefix) return false;
    id.remove_prefix(kPrefix.size());
    for (const char c : id.substr(0, kTimeDigits)) {
        if (!is_digit(c)) return false;
    }
    if (id[kTimeDigits] != '_') return false;
    for (const char c : id.substr(kTimeDigits + 1)) {
        if (!is_hex(c)) return false;
    }
    return true;
}

std::optional<std::string> inherited_trace_id() {
    const char *id = std::getenv(kTraceIdVariable);  // NOLINT(concurrency-mt-unsafe)
    if (id == nullptr || !valid_trace_id(id)) return std::nullopt;
    return std::string{id};
}

}  // namespace planloop
