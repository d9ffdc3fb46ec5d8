#include "lockcore/dev_mode.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <nlohmann/json.hpp>

#include "lockcore/record_files.h"
#include "lockcore/session.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

std::string text_of(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}
bool flag_of(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found == object.end() || !found->is_boolean() || found->get<bool>();
}
Json or_null(const std::string &text) {
    return text.empty() ? Json() : Json(text);
}

}  // namespace

std::string dev_mode_marker_path() {
    return planloop_home() + "/.dev_mode";
}

std::string dev_mode_path() {
    return planloop_home() + "/.dev_mode.json";
}

std::optional<DevMode> read_dev_mode() {
    constexpr std::size_t kMostBytes = std::size_t{1} << 20;
    const auto text = read_record(dev_mode_path(), kMostBytes);
    if (!text) return std::nullopt;
    const Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object()) return std::nullopt;
    DevMode mode;
    if (const std::string name = text_of(json, "mode"); !name.empty()) mode.mode = name;
    mode.enabled_at = text_of(json, "enabled_at");
    mode.repo_path = text_of(json, "repo_path");
    mode.git_commit = text_of(json, "git_commit");
    mode.backup_path = text_of(json, "backup_path");
    const auto features = json.find("features");
    if (features != json.end() && features->is_object()) {
        mode.features = {flag_of(*features, "llm_recording"), flag_of(*features, "tracing"),
                         flag_of(*features, "profiling")};
    }
    return mode;
}

Result<void> write_dev_mode(const DevMode &mode) {
    const Json json{{"mode", mode.mode},
                    {"enabled_at", or_null(mode.enabled_at)},
                    {"repo_path", or_null(mode.repo_path)},
                    {"git_commit", or_null(mode.git_commit)},
                    {"backup_path", or_null(mode.backup_path)},
                    {"features",
                     {{"llm_recording", mode.features.llm_recording},
                      {"tracing", mode.features.tracing},
                      {"profiling", mode.features.profiling}}}};
    if (auto made = make_record_folder(planloop_home()); !made) return made;
    const std::string text = json.dump(-1, ' ', false, Json::error_handler_t::replace) + '\n';
    if (auto written = replace_record(dev_mode_path(), text); !written) return written;
    if (mode.mode != "off") return replace_record(dev_mode_marker_path(), "dev");
    if (::unlink(dev_mode_marker_path().c_str()) != 0 && errno != ENOENT) {
        return Error{"cannot remove " + printable(dev_mode_marker_path()) + ": " +
                     std::strerror(errno)};  // NOLINT(concurrency-mt-unsafe)
    }
    return {};
}

bool recording_refused() {
    const char *refused = std::getenv("PLANLOOP_NO_RECORDING");  // NOLINT(concurrency-mt-unsafe)
    return refused != nullptr && std::strcmp(refused, "1") == 0;
}

RecordingFeatures recording_features() {
    if (recording_refused()) return {false, false, false};
    const auto mode = read_dev_mode();
    return mode ? mode->features : RecordingFeatures{};
}

}  // namespace planloop
