// planloop sessions create: a session with an empty plan, which becomes the current one.

#include <fmt/format.h>
#include <unistd.h>

#include <mutex>
#include <system_error>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/clock.h"
#include "lockcore/operation_trace.h"
#include "lockcore/plan_state.h"
#include "lockcore/session_lock.h"
#include "lockcore/state_file.h"

namespace planloop::cli {
namespace {

std::string working_folder() {
    char path[4096];
    return ::getcwd(path, sizeof(path)) != nullptr ? path : "";
}

Result<void> make_plan(const Session &session, const NewPlan &plan) {
    try {
        SessionLock lock(session);
        const std::lock_guard guard(lock);
        if (has_plan(session)) {
            return Error{
                fmt::format("session '{}' is there already; see planloop sessions list", printable(session.id))};
        }
        return replace_file(state_path(session), new_plan_state(plan));
    } catch (const std::system_error &error) {
        return Error{error.what()};
    }
}

}  // namespace

Result<int> run_sessions_create(const Arguments &arguments) {
    const auto name = arguments.value("--name");
    const auto id = arguments.value("--id");
    if (!name && !id) return Error{"sessions create needs --name N, or --id ID"};
    if (name && name->empty()) return Error{"--name is empty"};
    survive_size_limit();
    start_operation_trace("sessions create");
    const auto session = create_session(id ? *id : session_name_for(*name));
    if (!session) return failed(session.error());
    NewPlan plan;
    plan.session = session->id;
    plan.name = name.value_or(session->id);
    plan.title = arguments.value("--title").value_or("");
    plan.purpose = arguments.value("--purpose").value_or("");
    plan.project_root = working_folder();
    plan.utc_ns = utc_now_ns();
    if (auto made = make_plan(*session, plan); !made) return failed(made.error());
    if (auto set = set_current_session(session->id); !set) return failed(set.error());
    write_out(session->id + '\n');
    return kExitDone;
}

}  // namespace planloop::cli
