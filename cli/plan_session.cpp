#include "cli/plan_session.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>

#include "cli/output.h"
#include "lockcore/state_file.h"

namespace planloop::cli {

int failed(const Error &error) {
    say(error.message);
    return kExitFailed;
}

Result<Session> plan_session(const std::optional<std::string> &wanted, const std::optional<std::string> &fallback) {
    if (wanted) return find_session(*wanted);
    if (const auto current = current_session()) return find_session(*current);
    if (fallback) return find_session(*fallback);
    return Error{"no session: name one with --session, or choose one with planloop sessions switch --session S"};
}

std::optional<Session> session_for_records(const std::optional<std::string> &wanted) {
    if (!wanted || !valid_session_id(*wanted) || *wanted == "latest") return std::nullopt;
    const std::vector<SessionSummary> sessions = list_sessions();
    const bool is_prefix = std::any_of(sessions.begin(), sessions.end(), [&](const SessionSummary &session) {
        return session.id.compare(0, wanted->size(), *wanted) == 0;
    });
    if (is_prefix) return std::nullopt;
    return Session{*wanted, fmt::format("{}/sessions/{}", planloop_home(), *wanted)};
}

std::vector<std::string> command_line(std::string_view name, const Arguments &arguments) {
    std::vector<std::string> words{"planloop"};
    for (std::size_t space = name.find(' '); space != std::string_view::npos; space = name.find(' ')) {
        words.emplace_back(name.substr(0, space));
        name.remove_prefix(space + 1);
    }
    words.emplace_back(name);
    for (const auto &[option, value] : arguments.values) {
        words.push_back(option);
        if (!value.empty()) words.push_back(value);
    }
    return words;
}

void survive_size_limit() {
    ::signal(SIGXFSZ, SIG_IGN);
}

bool has_plan(const Session &session) {
    return ::access(state_path(session).c_str(), F_OK) == 0;
}

}  // namespace planloop::cli
