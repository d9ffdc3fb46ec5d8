// The JSON of a plan, with the checks that plan_state.cpp and plan_update.cpp share. Heavy: include in .cpp files only.
//
// A Problem is thrown and caught inside those two files: reading a field deep in a document is forty places that can go
// wrong and one that tells.
#ifndef PLANLOOP_LOCKCORE_PLAN_JSON_H
#define PLANLOOP_LOCKCORE_PLAN_JSON_H

#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace planloop::plan {

using Json = nlohmann::ordered_json;

struct Problem {
    std::string message;
    // For the log of what did not fit; may be empty, then the message says it all.
    std::string where{}, expected{}, got{};
};

inline constexpr std::array<std::string_view, 8> kTaskTypes{"test", "fix",   "refactor", "feature",
                                                            "doc",  "chore", "design",   "investigate"};
inline constexpr std::array<std::string_view, 9> kTaskStatuses{
    "TODO", "IN_PROGRESS", "DONE", "BLOCKED", "SKIPPED", "OUT_OF_SCOPE", "CANCELLED", "FAILED", "WAITING"};
inline constexpr std::array<std::string_view, 5> kArtifactTypes{"diff", "log", "file", "url", "other"};

// Parses `text`, which `name` stands for in messages, and sees that it is an object.
Json parse_object(std::string_view text, std::string_view name);

// A member, or nullptr when it is missing or null.
const Json *member(const Json &object, const char *key);
// Members that must have a type if they are there; `where` leads to `object` in messages: "tasks[3]".
std::string text_member(const Json &object, const char *key, const std::string &where);
bool flag_member(const Json &object, const char *key, const std::string &where);
const Json &array_member(const Json &object, const char *key, const std::string &where);  // missing: an empty one
const Json *object_member(const Json &object, const char *key, const std::string &where);
std::int64_t id_member(const Json &object, const char *key, const std::string &where);  // positive; must be there

template <class Names>
void expect_one_of(const Names &names, std::string_view value, const std::string &what) {
    std::string all;
    for (const std::string_view name : names) {
        if (name == value) return;
        all += all.empty() ? "" : " ";
        all += name;
    }
    throw Problem{what + " is none of: " + all, what, all, std::string(value)};
}

// Sees that a state is one, so that the rest may rely on it.
void check_state(const Json &state);

}  // namespace planloop::plan

#endif
