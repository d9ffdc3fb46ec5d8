// Reading JSON that others may have written: a field that is missing or of another type is empty, not an error. Heavy:
// include in .cpp files only.
#ifndef PLANLOOP_CLI_JSON_ACCESS_H
#define PLANLOOP_CLI_JSON_ACCESS_H

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "analysis/render/escape.h"

namespace planloop::cli {

using Json = nlohmann::ordered_json;

inline const Json &json_at(const Json &object, const char *key) {
    static const Json none;
    if (!object.is_object()) return none;
    const auto found = object.find(key);
    return found == object.end() ? none : *found;
}
inline const Json &json_list(const Json &object, const char *key) {
    static const Json none = Json::array();
    const Json &value = json_at(object, key);
    return value.is_array() ? value : none;
}
// Any value as text; null is empty.
inline std::string json_text(const Json &object, const char *key) {
    const Json &value = json_at(object, key);
    if (value.is_null()) return {};
    return value.is_string() ? value.get<std::string>() : value.dump(-1, ' ', false, Json::error_handler_t::replace);
}
// The same, fit for a terminal.
inline std::string shown(const Json &object, const char *key) {
    return analysis::terminal_text(json_text(object, key));
}
inline double json_number(const Json &object, const char *key) {
    const Json &value = json_at(object, key);
    return value.is_number() ? value.get<double>() : 0;
}
inline std::string json_dump(const Json &json, int indent = -1) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace planloop::cli

#endif
