#include "analysis/source/event_line.h"

#include <simdjson.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace planloop::analysis {
namespace {

using simdjson::ondemand::json_type;
using simdjson::ondemand::object;
using simdjson::ondemand::value;

// False: the line is broken here.
bool take_text(value from, std::string_view &to) {
    json_type type{};
    if (from.type().get(type) != simdjson::SUCCESS) return false;
    if (type != json_type::string) return true;
    return from.get_string().get(to) == simdjson::SUCCESS;
}

struct Number {
    std::int64_t whole = 0;  // 0 for what has a fraction or an exponent, as in 3.0
    double real = 0;
};

bool take_number(value from, Number &to) {
    json_type type{};
    simdjson::ondemand::number number;
    if (from.type().get(type) != simdjson::SUCCESS) return false;
    if (type != json_type::number) return true;
    if (from.get_number().get(number) != simdjson::SUCCESS) return false;
    to.real = number.as_double();
    constexpr auto kMost = std::numeric_limits<std::int64_t>::max();
    if (number.is_int64()) to.whole = number.get_int64();
    if (number.is_uint64()) {
        to.whole = static_cast<std::int64_t>(std::min<std::uint64_t>(number.get_uint64(), kMost));
    }
    return true;
}

bool take_integer(value from, std::int64_t &to) {
    Number number;
    if (!take_number(from, number)) return false;
    to = number.whole;
    return true;
}

bool take_positive(value from, std::uint64_t &to) {
    Number number;
    if (!take_number(from, number)) return false;
    to = static_cast<std::uint64_t>(std::max<std::int64_t>(number.whole, 0));
    return true;
}

// Calls take(name, value) for each member; false: broken.
template <class Take>
bool for_members(object members, const Take &take) {
    for (auto member : members) {
        std::string_view name;
        value what;
        if (member.unescaped_key().get(name) != simdjson::SUCCESS || member.value().get(what) != simdjson::SUCCESS) {
            return false;
        }
        if (!take(name, what)) return false;
    }
    return true;
}

bool take_lock(value from, EventLine &fields) {
    json_type type{};
    if (from.type().get(type) != simdjson::SUCCESS) return false;
    object members;
    if (type != json_type::object) return true;
    if (from.get_object().get(members) != simdjson::SUCCESS) return false;
    return for_members(members, [&](std::string_view name, value what) {
        if (name == "id") return take_text(what, fields.lock_id);
        if (name == "family") return take_text(what, fields.family);
        if (name == "path") return take_text(what, fields.path);
        if (name == "start") return take_positive(what, fields.start);
        if (name == "len") return take_positive(what, fields.len);
        return true;
    });
}

bool take_member(std::string_view name, value what, EventLine &fields) {
    const std::pair<std::string_view, std::string_view *> texts[] = {
        {"event", &fields.event},         {"timestamp", &fields.timestamp}, {"trace_id", &fields.trace_id},
        {"operation", &fields.operation}, {"lock_entry_id", &fields.entry}, {"process", &fields.process},
        {"source", &fields.source},       {"spool", &fields.spool},         {"mode", &fields.mode},
    };
    for (const auto &[known, to] : texts)
        if (name == known) return take_text(what, *to);
    if (name == "lock") return take_lock(what, fields);
    if (name == "pid") return take_integer(what, fields.pid);
    if (name == "tid") return take_integer(what, fields.tid);
    if (name == "errno") return take_integer(what, fields.error);
    if (name == "wait_ns") return take_integer(what, fields.wait_ns);
    if (name != "wait_ms") return true;
    Number number;
    if (!take_number(what, number)) return false;
    fields.wait_ms = number.real;
    return true;
}

}  // namespace

struct EventLineParser::State {
    simdjson::ondemand::parser parser;
    std::unique_ptr<char[]> padded;  // simdjson reads a little past the end
    std::size_t room = 0;
};

EventLineParser::EventLineParser() : state_(std::make_unique<State>()) {}
EventLineParser::~EventLineParser() = default;

bool EventLineParser::parse(std::string_view line, EventLine &fields) {
    const std::size_t needed = line.size() + simdjson::SIMDJSON_PADDING;
    if (state_->room < needed) {
        state_->room = 2 * needed;
        state_->padded = std::make_unique<char[]>(state_->room);
    }
    std::memcpy(state_->padded.get(), line.data(), line.size());
    std::memset(state_->padded.get() + line.size(), 0, simdjson::SIMDJSON_PADDING);
    simdjson::ondemand::document document;
    object members;
    if (state_->parser.iterate(state_->padded.get(), line.size(), state_->room).get(document) != simdjson::SUCCESS ||
        document.get_object().get(members) != simdjson::SUCCESS) {
        return false;
    }
    return for_members(members, [&](std::string_view name, value what) { return take_member(name, what, fields); }) &&
           document.current_location().error() == simdjson::OUT_OF_BOUNDS;
}

}  // namespace planloop::analysis
