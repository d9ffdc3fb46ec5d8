// planloop sessions switch: chooses the session that commands without --session are about.

#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/state_file.h"

namespace planloop::cli {

Result<int> run_sessions_switch(const Arguments &arguments) {
    const auto wanted = arguments.value("--session");
    if (!wanted) return Error{"sessions switch needs --session S"};
    const auto session = find_session(*wanted);
    if (!session) return failed(session.error());
    if (auto set = set_current_session(session->id); !set) return failed(set.error());
    write_out(session->id + '\n');
    return kExitDone;
}

}  // namespace planloop::cli
