// planloop sessions current: the id of the session that commands without --session are about.

#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"

namespace planloop::cli {

Result<int> run_sessions_current(const Arguments &) {
    const auto session = plan_session(std::nullopt);
    if (!session) return failed(session.error());
    write_out(session->id + '\n');
    return kExitDone;
}

}  // namespace planloop::cli
