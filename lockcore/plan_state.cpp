#include "lockcore/plan_state.h"

#include <fmt/format.h>

#include "lockcore/clock.h"
#include "lockcore/plan_json.h"

namespace planloop {

using plan::Json;

std::string new_plan_state(const NewPlan &fresh) {
    const std::string now = format_utc(fresh.utc_ns);
    Json state;
    state["schema_version"] = 1;
    state["version"] = 0;
    state["session"] = fresh.session;
    state["name"] = fresh.name;
    state["title"] = fresh.title.empty() ? fresh.name : fresh.title;
    state["purpose"] = fresh.purpose;
    state["created_at"] = now;
    state["last_updated_at"] = now;
    state["project_root"] = fresh.project_root;
    state["branch"] = nullptr;
    state["prompts"] = {{"set", "default"}};
    state["environment"] = {{"os", "linux"}};
    for (const char *list : {"tags", "tasks", "signals", "next_steps", "context_notes", "artifacts"}) {
        state[list] = Json::array();
    }
    state["now"] = {{"reason", "idle"}, {"task_id", nullptr}, {"signal_id", nullptr}};
    state["done"] = false;
    state["final_summary"] = nullptr;
    return state.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
}

Result<PlanSummary> summarise_plan(std::string_view text) {
    try {
        const Json state = plan::parse_object(text, "state.json");
        plan::check_state(state);
        PlanSummary summary;
        summary.session = plan::text_member(state, "session", "");
        summary.name = plan::text_member(state, "name", "");
        summary.title = plan::text_member(state, "title", "");
        summary.purpose = plan::text_member(state, "purpose", "");
        summary.created_at = plan::text_member(state, "created_at", "");
        summary.last_updated_at = plan::text_member(state, "last_updated_at", "");
        summary.version = state["version"].get<std::int64_t>();
        summary.done = plan::flag_member(state, "done", "");
        if (const Json *now = plan::object_member(state, "now", "")) {
            summary.reason = plan::text_member(*now, "reason", "now");
            if (plan::member(*now, "task_id") != nullptr) summary.task_id = plan::id_member(*now, "task_id", "now");
        }
        for (const Json &task : plan::array_member(state, "tasks", "")) {
            ++summary.tasks[plan::text_member(task, "status", "task")];
            if (task["id"].get<std::int64_t>() == summary.task_id) {
                summary.task_title = plan::text_member(task, "title", "task");
            }
        }
        for (const Json &signal : plan::array_member(state, "signals", "")) {
            if (plan::flag_member(signal, "open", "signal")) ++summary.open_signals;
        }
        return summary;
    } catch (const plan::Problem &problem) {
        return Error{problem.message};
    }
}

std::optional<std::string> session_in_payload(std::string_view payload) {
    try {
        const std::string session = plan::text_member(plan::parse_object(payload, "payload"), "session", "");
        return session.empty() ? std::nullopt : std::optional(session);
    } catch (const plan::Problem &) {
        return std::nullopt;
    }
}

}  // namespace planloop
