// planloop sessions info: what a session is about and where it is.

#include <fmt/format.h>

#include "analysis/render/escape.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/plan_state.h"
#include "lockcore/state_file.h"

namespace planloop::cli {

Result<int> run_sessions_info(const Arguments &arguments) {
    using analysis::terminal_text;
    const auto session = plan_session(arguments.value("--session"));
    if (!session) return failed(session.error());
    const auto state = read_state_file(*session);
    if (!state) return failed(state.error());
    const auto plan = summarise_plan(*state);
    if (!plan) return failed({fmt::format("{}: {}", printable(state_path(*session)), plan.error().message)});
    std::size_t tasks = 0;
    for (const auto &[status, count] : plan->tasks) tasks += count;
    const std::pair<std::string_view, std::string> lines[] = {
        {"session", session->id},
        {"name", plan->name},
        {"title", plan->title},
        {"purpose", plan->purpose},
        {"folder", session->directory},
        {"created", plan->created_at},
        {"updated", plan->last_updated_at},
        {"version", std::to_string(plan->version)},
        {"tasks", std::to_string(tasks)},
    };
    for (const auto &[name, value] : lines) {
        if (!value.empty()) write_out(fmt::format("{:<8} {}\n", name, terminal_text(value)));
    }
    return kExitDone;
}

}  // namespace planloop::cli
