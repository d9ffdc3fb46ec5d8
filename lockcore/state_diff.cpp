#include "lockcore/state_diff.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/operation_trace.h"
#include "lockcore/plan_json.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"

namespace planloop {
namespace {

using plan::Json;

std::string with_name(const std::string &path, const std::string &name) {
    const bool plain = !name.empty() && name.find_first_of(". []\"\\") == std::string::npos;
    if (!plain) return path + '[' + Json(name).dump(-1, ' ', false, Json::error_handler_t::replace) + ']';
    return path.empty() ? name : path + '.' + name;
}

void compare(const Json &before, const Json &after, const std::string &path, Json &changes) {
    if (before == after) return;
    if (before.is_object() && after.is_object()) {
        for (const auto &[name, value] : before.items()) {
            const auto now = after.find(name);
            compare(value, now == after.end() ? Json() : *now, with_name(path, name), changes);
        }
        for (const auto &[name, value] : after.items()) {
            if (!before.contains(name)) compare(Json(), value, with_name(path, name), changes);
        }
        return;
    }
    if (before.is_array() && after.is_array()) {
        for (std::size_t i = 0; i < std::max(before.size(), after.size()); ++i) {
            compare(i < before.size() ? before[i] : Json(), i < after.size() ? after[i] : Json(),
                    fmt::format("{}[{}]", path, i), changes);
        }
        return;
    }
    changes[path] = {{"old", before}, {"new", after}};
}

Result<Json> changes_of(std::string_view before, std::string_view after) {
    try {
        Json changes = Json::object();
        compare(plan::parse_object(before, "the state before"), plan::parse_object(after, "the state after"), "",
                changes);
        return changes;
    } catch (const plan::Problem &problem) {
        return Error{problem.message};
    }
}

std::string text_of(const Json &json, int indent) {
    return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

Result<std::string> state_changes(std::string_view before, std::string_view after) {
    auto changes = changes_of(before, after);
    if (!changes) return changes.error();
    return text_of(*changes, -1);
}

Result<std::string> record_state_diff(const Session &session, std::string_view before, std::string_view after) {
    if (!recording_features().tracing) return std::string();
    const std::string pre = redacted_json(before);
    const std::string post = redacted_json(after);
    auto changes = changes_of(pre, post);
    if (!changes) return changes.error();
    if (changes->empty()) return std::string();
    const Json diff{{"trace_id", current_trace_id()},        {"operation", current_trace().operation},
                    {"timestamp", format_utc(utc_now_ns())}, {"before_file", "{stem}_pre.json"},
                    {"after_file", "{stem}_post.json"},      {"changes", std::move(*changes)}};
    const std::string text = text_of(diff, 2) + '\n';
    const std::array parts{RecordPart{"_diff.json", text, true}, RecordPart{"_pre.json", pre},
                           RecordPart{"_post.json", post}};
    const auto stem = write_record(diffs_dir(session), current_trace_id(), parts);
    if (!stem) return stem.error();
    return fmt::format("{}/{}_diff.json", diffs_dir(session), *stem);
}

}  // namespace planloop
