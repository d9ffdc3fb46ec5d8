#include "lockcore/operation_trace.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/trace_id.h"

namespace planloop {

constinit thread_local std::uint32_t recording::trace_serial = 1;

namespace {

constexpr std::size_t kTimeDigits = 14;
constexpr std::size_t kPackedHexDigits = 16;
constexpr std::size_t kW3cTraceDigits = 32;
constexpr std::size_t kW3cSpanDigits = 16;
constexpr std::size_t kHexStart = 3 + kTimeDigits + 1;  // behind "tr_", the time and '_'
constexpr std::size_t kLongestOperation = 64;

// Without a destructor: locks are used, and recorded, while a thread's and the program's objects are destroyed.
struct ThreadTrace {
    char trace_id[kLongestTraceId + 1];
    char operation[kLongestOperation + 1];
};
constinit thread_local ThreadTrace thread_trace{};

template <std::size_t size>
void copy_text(char (&to)[size], std::string_view from) {
    to[from.copy(to, size - 1)] = '\0';
}

bool is_hex(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}
bool is_decimal(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}
bool is_zero(std::string_view text) {
    return std::all_of(text.begin(), text.end(), [](char c) { return c == '0'; });
}

std::uint64_t fnv(std::string_view text, std::uint64_t hash) {
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

std::uint64_t random_word() {
    std::uint64_t word = 0;
    if (getrandom(&word, sizeof(word), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(word))) {
        word = static_cast<std::uint64_t>(utc_now_ns()) * 0x9e3779b97f4a7c15U + static_cast<std::uint64_t>(gettid());
    }
    return word == 0 ? 1 : word;
}

std::string hashed(std::string_view text) {
    return fmt::format("{:016x}{:016x}", fnv(text, 0xcbf29ce484222325U), fnv(text, 0x84222325cbf29ce4U));
}

// <14 digits of time><up to 16 hex digits, filled with zeros><how many they were, two digits>
std::string pack(std::string_view trace_id) {
    const std::string_view time = trace_id.substr(3, kTimeDigits);
    const std::string_view hex = trace_id.substr(kHexStart);
    if (hex.size() == kW3cTraceDigits) return std::string(hex);
    if (hex.size() > kPackedHexDigits) return hashed(trace_id);
    return fmt::format("{}{:0<16}{:02x}", time, hex, hex.size());
}

std::optional<std::string> unpack(std::string_view w3c) {
    const std::string_view time = w3c.substr(0, kTimeDigits);
    const std::string_view hex = w3c.substr(kTimeDigits, kPackedHexDigits);
    const std::string_view count = w3c.substr(kTimeDigits + kPackedHexDigits);
    const std::size_t length = std::strtoul(std::string(count).c_str(), nullptr, 16);
    if (!is_decimal(time) || length < 6 || length > kPackedHexDigits || !is_zero(hex.substr(length))) return {};
    return fmt::format("tr_{}_{}", time, hex.substr(0, length));
}

// What the process was started with: later the environment holds what its own main thread put there.
const std::string &inherited() {
    static const std::string &id = *new std::string([] {  // never destroyed: see ThreadTrace
        if (auto given = inherited_trace_id()) return *given;
        const char *parent = std::getenv(kTraceParentVariable);  // NOLINT(concurrency-mt-unsafe)
        return parent == nullptr ? std::string() : from_traceparent(parent).value_or(std::string());
    }());
    return id;
}

void set_trace(std::string_view trace_id, std::string_view operation) {
    copy_text(thread_trace.trace_id, trace_id);
    copy_text(thread_trace.operation, operation);
    if (++recording::trace_serial == 0) recording::trace_serial = 1;
}

}  // namespace

recording::TraceTexts recording::trace_texts() noexcept {
    return {thread_trace.trace_id, thread_trace.operation};
}

std::string process_trace_id() {
    static const std::string &made = *new std::string(inherited().empty() ? make_trace_id() : inherited());
    return made;
}

std::string start_operation_trace(std::string_view operation) {
    std::string id = inherited().empty() ? make_trace_id() : inherited();
    set_trace(id, operation);
    if (getpid() == gettid()) {
        setenv(kTraceIdVariable, id.c_str(), 1);                      // NOLINT(concurrency-mt-unsafe)
        setenv(kTraceParentVariable, to_traceparent(id).c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
    }
    return id;
}

OperationTrace current_trace() {
    return {thread_trace.trace_id, thread_trace.operation};
}

std::string current_trace_id() {
    return thread_trace.trace_id[0] == '\0' ? process_trace_id() : thread_trace.trace_id;
}

TraceScope::TraceScope(const OperationTrace &trace) : before_(current_trace()) {
    set_trace(trace.trace_id, trace.operation);
}

TraceScope::~TraceScope() {
    set_trace(before_.trace_id, before_.operation);
}

std::vector<std::string> trace_environment() {
    const std::string id = current_trace_id();
    return {fmt::format("{}={}", kTraceIdVariable, id), fmt::format("{}={}", kTraceParentVariable, to_traceparent(id))};
}

std::string to_w3c_trace_id(std::string_view trace_id) {
    return valid_trace_id(trace_id) ? pack(trace_id) : hashed(trace_id);
}

std::string to_traceparent(std::string_view trace_id) {
    const std::string packed =
        valid_trace_id(trace_id) ? pack(trace_id) : fmt::format("{:016x}{:016x}", random_word(), random_word());
    return fmt::format("00-{}-{:016x}-01", packed, random_word());
}

std::optional<std::string> from_traceparent(std::string_view value) {
    // version "-" trace-id "-" parent-id "-" flags; a later version may go on behind another '-'.
    constexpr std::size_t kLength = 2 + 1 + kW3cTraceDigits + 1 + kW3cSpanDigits + 1 + 2;
    if (value.size() < kLength || (value.size() > kLength && (value[kLength] != '-' || value.substr(0, 2) == "00"))) {
        return std::nullopt;
    }
    const std::string_view version = value.substr(0, 2);
    const std::string_view trace = value.substr(3, kW3cTraceDigits);
    const std::string_view span = value.substr(4 + kW3cTraceDigits, kW3cSpanDigits);
    const std::string_view flags = value.substr(kLength - 2, 2);
    const bool dashes = value[2] == '-' && value[3 + kW3cTraceDigits] == '-' && value[kLength - 3] == '-';
    if (!dashes || !is_hex(version) || version == "ff" || !is_hex(trace) || is_zero(trace) || !is_hex(span) ||
        is_zero(span) || !is_hex(flags)) {
        return std::nullopt;
    }
    if (auto ours = unpack(trace)) return ours;
    return fmt::format("tr_{}_{}", compact_utc(utc_now_ns(), false), trace);
}

}  // namespace planloop
