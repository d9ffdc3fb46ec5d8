#include "lockcore/plan_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

namespace planloop::plan {
namespace {

constexpr int kDeepest = 200;  // nlohmann's writer recurses

int depth_of(std::string_view text) {
    int depth = 0;
    int deepest = 0;
    bool in_string = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        const char c = text[i];
        if (in_string) {
            if (c == '\\') ++i;
            if (c == '"') in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '{' || c == '[') {
            deepest = std::max(deepest, ++depth);
        } else if (c == '}' || c == ']') {
            --depth;
        }
    }
    return deepest;
}

std::string at(const std::string &where, const char *key) {
    return where.empty() ? key : where + '.' + key;
}

Problem misfit(const std::string &where, std::string_view how, std::string_view expected, const Json &got) {
    return {fmt::format("{} {}", where, how), where, std::string(expected),
            got.dump(-1, ' ', false, Json::error_handler_t::replace)};
}

void check_tasks(const Json &state) {
    std::set<std::int64_t> ids;
    const Json &tasks = array_member(state, "tasks", "");
    for (std::size_t i = 0; i < tasks.size(); ++i) {
        const std::string where = fmt::format("tasks[{}]", i);
        if (!tasks[i].is_object()) throw Problem{where + " is no object"};
        const std::int64_t id = id_member(tasks[i], "id", where);
        if (!ids.insert(id).second) throw Problem{fmt::format("{}.id {} is there twice", where, id)};
        text_member(tasks[i], "title", where);
        text_member(tasks[i], "status", where);
        for (const Json &other : array_member(tasks[i], "depends_on", where)) {
            if (!other.is_number_integer()) throw Problem{where + ".depends_on holds something else than ids"};
        }
    }
}

}  // namespace

Json parse_object(std::string_view text, std::string_view name) {
    if (text.find_first_not_of(" \t\r\n") == std::string_view::npos) throw Problem{fmt::format("{} is empty", name)};
    if (depth_of(text) > kDeepest) throw Problem{fmt::format("{} is nested too deep", name)};
    try {
        Json json = Json::parse(text);
        if (!json.is_object()) throw Problem{fmt::format("{} is no JSON object", name)};
        return json;
    } catch (const Json::exception &error) {
        const std::string_view what = error.what();
        const std::size_t place = what.find("at line");
        throw Problem{fmt::format("{} is no valid JSON{}", name,
                                  place == std::string_view::npos
                                      ? std::string()
                                      : fmt::format(" ({})", what.substr(place, what.find(':', place) - place)))};
    }
}

const Json *member(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

std::string text_member(const Json &object, const char *key, const std::string &where) {
    const Json *value = member(object, key);
    if (value == nullptr) return {};
    if (!value->is_string()) throw misfit(at(where, key), "is no text", "text", *value);
    return value->get<std::string>();
}

bool flag_member(const Json &object, const char *key, const std::string &where) {
    const Json *value = member(object, key);
    if (value == nullptr) return false;
    if (!value->is_boolean()) throw misfit(at(where, key), "is neither true nor false", "true or false", *value);
    return value->get<bool>();
}

const Json &array_member(const Json &object, const char *key, const std::string &where) {
    static const Json none = Json::array();
    const Json *value = member(object, key);
    if (value == nullptr) return none;
    if (!value->is_array()) throw misfit(at(where, key), "is no list", "list", *value);
    return *value;
}

const Json *object_member(const Json &object, const char *key, const std::string &where) {
    const Json *value = member(object, key);
    if (value != nullptr && !value->is_object()) throw misfit(at(where, key), "is no object", "object", *value);
    return value;
}

std::int64_t id_member(const Json &object, const char *key, const std::string &where) {
    const Json *value = member(object, key);
    if (value == nullptr)
        throw Problem{at(where, key) + " is missing", at(where, key), "positive whole number", "nothing"};
    constexpr std::int64_t kLargest = std::int64_t{1} << 53;
    const bool fits =
        value->is_number_integer() && (!value->is_number_unsigned() || value->get<std::uint64_t>() < kLargest);
    if (!fits || value->get<std::int64_t>() <= 0) {
        throw misfit(at(where, key), "is no positive whole number", "positive whole number", *value);
    }
    return value->get<std::int64_t>();
}

void check_state(const Json &state) {
    const Json *version = member(state, "version");
    constexpr std::uint64_t kLargest = std::uint64_t{1} << 53;
    if (version == nullptr || !version->is_number_unsigned() || version->get<std::uint64_t>() > kLargest) {
        throw Problem{"version is no whole number"};
    }
    const Json *schema = member(state, "schema_version");
    if (schema != nullptr && (!schema->is_number_integer() || schema->get<std::int64_t>() != 1)) {
        throw Problem{"schema_version is not 1: made by another planloop"};
    }
    for (const char *key : {"session", "name", "title", "purpose", "created_at", "last_updated_at", "final_summary"}) {
        text_member(state, key, "");
    }
    for (const char *key : {"signals", "next_steps", "context_notes", "artifacts"}) array_member(state, key, "");
    const Json &signals = array_member(state, "signals", "");
    for (std::size_t i = 0; i < signals.size(); ++i) {
        if (!signals[i].is_object()) throw Problem{fmt::format("signals[{}] is no object", i)};
    }
    object_member(state, "now", "");
    flag_member(state, "done", "");
    check_tasks(state);
}

}  // namespace planloop::plan
