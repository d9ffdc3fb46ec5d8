#include "cli/json_lines.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "lockcore/jsonl.h"

namespace planloop::cli {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

bool read(std::string_view text, JsonLine &line) {
    constexpr int kDeepest = 100;
    int depth = 0;
    // A line of a million brackets is no event; the parser would take a stack frame for each.
    const auto json = Json::parse(
        text,
        [&](int at, Json::parse_event_t, Json &) {
            depth = std::max(depth, at);
            return at < kDeepest;
        },
        false);
    if (!json.is_object() || depth >= kDeepest) return false;
    line.text = text;
    line.trace_id = text_of(json, "trace_id");
    line.timestamp = text_of(json, "timestamp");
    line.event = text_of(json, "event");
    line.level = text_of(json, "level");
    line.operation = text_of(json, "operation");
    line.message = text_of(json, "message");
    line.context.clear();
    const auto context = json.find("context");
    if (context != json.end()) line.context = context->dump(-1, ' ', false, Json::error_handler_t::replace);
    const auto tags = json.find("tags");
    if (line.trace_id.empty() && tags != json.end() && tags->is_object()) line.trace_id = text_of(*tags, "trace_id");
    return true;
}

}  // namespace

bool is_json_object(std::string_view text) {
    const std::size_t first = text.find_first_not_of(" \t\r\n");
    return first != std::string_view::npos && text[first] == '{' && Json::accept(text);
}

std::string time_of_document(std::string_view text) {
    const Json json = Json::parse(text, nullptr, false);
    if (!json.is_object()) return {};
    const std::string time = text_of(json, "timestamp");
    return time.empty() ? text_of(json, "started_at") : time;
}

Result<JsonLineCount> each_json_line(const std::string &path, const std::function<bool(const JsonLine &)> &use) {
    JsonLineCount count;
    if (::access(path.c_str(), F_OK) != 0 && errno == ENOENT) return count;
    auto reader = LineReader::open(path);
    if (!reader) return reader.error();
    std::string_view text;
    JsonLine line;
    while (reader->next(text) || reader->take_unterminated(text)) {
        if (text.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        if (!read(text, line)) {
            ++count.passed_over;
            continue;
        }
        ++count.lines;
        if (!use(line)) break;
    }
    count.passed_over += reader->oversized();
    return count;
}

}  // namespace planloop::cli
