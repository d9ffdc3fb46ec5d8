// planloop status: what a session's plan is at, and who is in its lock and before it. It reads without the lock: files
// are replaced whole, and a status that had to queue could not show a queue that does not move.

#include <fmt/format.h>

#include "analysis/render/escape.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/plan_state.h"
#include "lockcore/session_queue.h"
#include "lockcore/state_file.h"

namespace planloop::cli {
namespace {

using analysis::terminal_text;

std::string json_text(std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
}

std::string as_json(const Session &session, const PlanSummary &plan, const LockQueue &queue) {
    std::string out = fmt::format(
        R"({{"session":{},"version":{},"now":{{"reason":{},"task_id":{}}},"done":{},"tasks":{{)", json_text(session.id),
        plan.version, json_text(plan.reason), plan.task_id != 0 ? std::to_string(plan.task_id) : "null", plan.done);
    std::string_view comma;
    for (const auto &[status, count] : plan.tasks) {
        out += fmt::format("{}{}:{}", comma, json_text(status), count);
        comma = ",";
    }
    out += fmt::format(R"(}},"open_signals":{},"lock":{{"holder":)", plan.open_signals);
    if (queue.holder) {
        out +=
            fmt::format(R"({{"held_by":{},"operation":{},"since":{}}})", json_text(queue.holder->held_by),
                        json_text(queue.holder->operation),
                        queue.holder->since_utc_ns != 0 ? json_text(format_utc(queue.holder->since_utc_ns)) : "null");
    } else {
        out += "null";
    }
    out += R"(,"waiting":[)";
    comma = "";
    for (const LockWaiter &waiter : queue.waiting) {
        out += fmt::format(R"({}{{"agent":{},"operation":{},"requested_at":{}}})", comma, json_text(waiter.agent),
                           json_text(waiter.operation), json_text(format_utc(waiter.requested_utc_us * 1000)));
        comma = ",";
    }
    return out + "]}}\n";
}

std::string as_text(const Session &session, const PlanSummary &plan, const LockQueue &queue) {
    std::string out = fmt::format("session  {}\n", terminal_text(session.id));
    if (!plan.title.empty()) out += fmt::format("title    {}\n", terminal_text(plan.title));
    out += fmt::format("version  {}{}\n", plan.version, plan.done ? ", done" : "");
    out += fmt::format("now      {}", plan.reason.empty() ? "not told" : terminal_text(plan.reason));
    if (plan.task_id != 0) out += fmt::format(": {}. {}", plan.task_id, terminal_text(plan.task_title));
    out += "\ntasks    ";
    std::string_view comma;
    for (const auto &[status, count] : plan.tasks) {
        out += fmt::format("{}{} {}", comma, count, terminal_text(status));
        comma = ", ";
    }
    out += plan.tasks.empty() ? "none\n" : "\n";
    if (plan.open_signals != 0) out += fmt::format("signals  {} open\n", plan.open_signals);
    out += fmt::format("lock     {}\n", queue.holder ? terminal_text(queue.holder->description()) : "free");
    for (std::size_t i = 0; i < queue.waiting.size(); ++i) {
        const LockWaiter &waiter = queue.waiting[i];
        out += fmt::format("{:>7}  {} ({}), since {}\n", i + 1, terminal_text(waiter.agent),
                           terminal_text(waiter.operation), format_utc(waiter.requested_utc_us * 1000));
    }
    return out;
}

}  // namespace

Result<int> run_status(const Arguments &arguments) {
    const auto session = plan_session(arguments.value("--session"));
    if (!session) return failed(session.error());
    const auto state = read_state_file(*session);
    if (!state) return failed(state.error());
    const auto plan = summarise_plan(*state);
    if (!plan) return failed({fmt::format("{}: {}", printable(state_path(*session)), plan.error().message)});
    const LockQueue queue = read_lock_queue(*session);
    write_out(arguments.has("--json") ? as_json(*session, *plan, queue) : as_text(*session, *plan, queue));
    return kExitDone;
}

}  // namespace planloop::cli
