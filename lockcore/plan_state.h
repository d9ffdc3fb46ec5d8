// A session's plan, `state.json`: what it may contain, and how an update changes it. Texts in, texts out: no file is
// touched here (state_file.h does that), so every rule can be tried without one.
//
// Fields that this program does not know are kept as they are, with their order. Numbers stay what they were as far as
// a double can hold them.
//
// Errors: one line that names the field; nothing of an update is applied unless all of it can be. Hostile input
// (deep nesting, wrong types, no UTF-8) is an error like any other. Threads: no state.
#ifndef PLANLOOP_LOCKCORE_PLAN_STATE_H
#define PLANLOOP_LOCKCORE_PLAN_STATE_H

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "lockcore/result.h"
#include "lockcore/validation_log.h"

namespace planloop {

struct NewPlan {
    std::string session, name, title, purpose, project_root;
    std::int64_t utc_ns = 0;
};
std::string new_plan_state(const NewPlan &plan);

// A queue that did not move, to be told in the plan as an open signal of level blocker, kind `queue_stall`. The next
// update that comes without one closes it.
struct QueueStallSignal {
    std::string message;
};

struct PlanUpdate {
    std::string state;  // the new state.json
    std::string plan;   // the new PLAN.md
    std::int64_t version = 0;
    std::string agent;  // who says it does this; may be empty
};
// `payload` as `planloop update` takes it; `session` must be what payload and state say.
// `refused`, if given, becomes what did not fit.
Result<PlanUpdate> apply_update(std::string_view state, std::string_view payload, std::string_view session,
                                std::int64_t utc_ns, const std::optional<QueueStallSignal> &stall = {},
                                ValidationFailure *refused = nullptr);

struct PlanSummary {
    std::string session, name, title, purpose, created_at, last_updated_at;
    std::int64_t version = 0;
    std::string reason;        // of `now`
    std::int64_t task_id = 0;  // that `now` is about; 0: none
    std::string task_title;
    std::map<std::string, std::size_t> tasks;  // by status
    std::size_t open_signals = 0;
    bool done = false;
};
Result<PlanSummary> summarise_plan(std::string_view state);

// The session that a payload names, if it is one at all; for a caller that was told no other.
std::optional<std::string> session_in_payload(std::string_view payload);

}  // namespace planloop

#endif
