#include "cli/plan_session.h"

#include <signal.h>
#include <unistd.h>

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

void survive_size_limit() {
    ::signal(SIGXFSZ, SIG_IGN);
}

bool has_plan(const Session &session) {
    return ::access(state_path(session).c_str(), F_OK) == 0;
}

}  // namespace planloop::cli
