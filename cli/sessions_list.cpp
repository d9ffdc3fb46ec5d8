// planloop sessions list: the sessions that have a plan. (`dev sessions` lists what was recorded.)

#include <fmt/format.h>

#include <algorithm>

#include "analysis/render/escape.h"
#include "analysis/render/table.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/plan_state.h"
#include "lockcore/state_file.h"

namespace planloop::cli {

Result<int> run_sessions_list(const Arguments &) {
    using analysis::terminal_text;
    using Align = analysis::TextTable::Align;
    analysis::TextTable table({{""}, {"SESSION"}, {"VERSION", Align::right}, {"NOW"}, {"TITLE"}});
    const auto current = current_session();
    std::vector<SessionSummary> sessions = list_sessions();
    std::sort(sessions.begin(), sessions.end(), [](const auto &a, const auto &b) { return a.id < b.id; });
    bool any = false;
    for (const SessionSummary &summary : sessions) {
        const auto session = find_session(summary.id);
        if (!session || !has_plan(*session)) continue;
        any = true;
        const std::string mark = current == summary.id ? "*" : "";
        const auto state = read_state_file(*session);
        const auto plan = state ? summarise_plan(*state) : Result<PlanSummary>(state.error());
        if (plan) {
            table.add_row({mark, terminal_text(summary.id), std::to_string(plan->version), terminal_text(plan->reason),
                           terminal_text(plan->title)});
        } else {
            table.add_row({mark, terminal_text(summary.id), "?", "", terminal_text(plan.error().message)});
        }
    }
    if (!any) {
        say("no plans yet; make one with planloop sessions create --name N");
        return kExitDone;
    }
    std::string out;
    table.append_to(out);
    write_out(out);
    return kExitDone;
}

}  // namespace planloop::cli
