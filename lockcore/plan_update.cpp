// apply_update() of plan_state.h: the rules by which a payload changes a plan.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/plan_json.h"
#include "lockcore/plan_state.h"

namespace planloop {
namespace {

using plan::Json;
using plan::Problem;

class Update {
  public:
    Update(Json state, Json payload, std::int64_t utc_ns)
        : state_(std::move(state)), payload_(std::move(payload)), now_(format_utc(utc_ns)) {}

    void check_addressee(std::string_view session) const;
    void check_not_empty() const;
    void apply();
    void note_queue(const std::optional<QueueStallSignal> &stall);
    PlanUpdate finish();

  private:
    void check_version() const;
    void change_tasks(const char *list, bool may_change_type);
    void add_tasks();
    void replace_texts(const char *list);
    void add_artifacts();
    Json &list(const char *key);
    Json *task(std::int64_t id);
    std::int64_t highest_id(const char *list) const;
    void decide_what_is_now();
    bool is_startable(const Json &task);
    std::string plan_text() const;

    Json state_, payload_;
    std::string now_, agent_;
};

void Update::check_addressee(std::string_view session) const {
    const std::string addressed = plan::text_member(payload_, "session", "payload");
    if (addressed.empty()) throw Problem{"payload.session is missing"};
    if (addressed != session) throw Problem{fmt::format("payload is for session '{}', not '{}'", addressed, session)};
    const std::string own = plan::text_member(state_, "session", "");
    if (!own.empty() && own != session)
        throw Problem{fmt::format("state.json is of session '{}', not '{}'", own, session)};
    check_version();
}

void Update::check_version() const {
    const Json *seen = plan::member(payload_, "last_seen_version");
    if (seen == nullptr) return;
    const auto version = state_["version"].get<std::uint64_t>();
    std::uint64_t number = 0;
    bool same = false;
    if (seen->is_string()) {
        const auto text = seen->get<std::string>();
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
        same = error == std::errc{} && end == text.data() + text.size() && number == version;
    } else if (seen->is_number_unsigned()) {
        same = seen->get<std::uint64_t>() == version;
    } else {
        throw Problem{"payload.last_seen_version is no version"};
    }
    if (!same) {
        throw Problem{fmt::format("payload was made for version {}, the plan is at version {}",
                                  seen->is_string() ? seen->get<std::string>() : seen->dump(), version)};
    }
}

void Update::check_not_empty() const {
    for (const char *key : {"tasks", "add_tasks", "update_tasks", "artifacts"}) {
        if (!plan::array_member(payload_, key, "payload").empty()) return;
    }
    for (const char *key : {"context_notes", "next_steps", "final_summary", "done"}) {
        if (plan::member(payload_, key) != nullptr) return;
    }
    throw Problem{"payload is empty: it changes nothing"};
}

Json &Update::list(const char *key) {
    Json &value = state_[key];
    if (value.is_null()) value = Json::array();
    return value;
}

Json *Update::task(std::int64_t id) {
    for (Json &one : list("tasks")) {
        if (one["id"].get<std::int64_t>() == id) return &one;
    }
    return nullptr;
}

std::int64_t Update::highest_id(const char *key) const {
    std::int64_t highest = 0;
    for (const Json &one : plan::array_member(state_, key, "")) {
        const Json *id = plan::member(one, "id");
        if (id != nullptr && id->is_number_integer()) highest = std::max(highest, id->get<std::int64_t>());
    }
    return highest;
}

void Update::change_tasks(const char *key, bool may_change_type) {
    const Json &changes = plan::array_member(payload_, key, "payload");
    for (std::size_t i = 0; i < changes.size(); ++i) {
        const std::string where = fmt::format("payload.{}[{}]", key, i);
        if (!changes[i].is_object()) throw Problem{where + " is no object"};
        const std::int64_t id = plan::id_member(changes[i], "id", where);
        Json *changed = task(id);
        if (changed == nullptr) throw Problem{fmt::format("{}: there is no task {}", where, id)};
        if (plan::member(changes[i], "status") != nullptr) {
            const std::string status = plan::text_member(changes[i], "status", where);
            plan::expect_one_of(plan::kTaskStatuses, status, where + ".status");
            (*changed)["status"] = status;
        }
        if (plan::member(changes[i], "new_title") != nullptr) {
            const std::string title = plan::text_member(changes[i], "new_title", where);
            if (title.empty()) throw Problem{where + ".new_title is empty"};
            (*changed)["title"] = title;
        }
        if (may_change_type && plan::member(changes[i], "new_type") != nullptr) {
            const std::string type = plan::text_member(changes[i], "new_type", where);
            plan::expect_one_of(plan::kTaskTypes, type, where + ".new_type");
            (*changed)["type"] = type;
        }
        (*changed)["last_updated_at"] = now_;
    }
}

void Update::add_tasks() {
    const Json &added = plan::array_member(payload_, "add_tasks", "payload");
    std::int64_t id = highest_id("tasks");
    for (std::size_t i = 0; i < added.size(); ++i) {
        const std::string where = fmt::format("payload.add_tasks[{}]", i);
        if (!added[i].is_object()) throw Problem{where + " is no object"};
        const std::string title = plan::text_member(added[i], "title", where);
        if (title.empty()) throw Problem{where + ".title is missing"};
        std::string type = plan::text_member(added[i], "type", where);
        if (type.empty()) type = "feature";
        plan::expect_one_of(plan::kTaskTypes, type, where + ".type");
        ++id;
        Json depends_on = Json::array();
        for (const Json &other : plan::array_member(added[i], "depends_on", where)) {
            if (!other.is_number_integer()) throw Problem{where + ".depends_on holds something else than ids"};
            const auto wanted = other.get<std::int64_t>();
            if (wanted == id) throw Problem{fmt::format("{}: task {} would depend on itself", where, id)};
            if (task(wanted) == nullptr)
                throw Problem{fmt::format("{}.depends_on: there is no task {}", where, wanted)};
            depends_on.push_back(wanted);
        }
        list("tasks").push_back({{"id", id},
                                 {"title", title},
                                 {"type", type},
                                 {"status", "TODO"},
                                 {"depends_on", std::move(depends_on)},
                                 {"commit_sha", nullptr},
                                 {"last_updated_at", now_}});
    }
}

void Update::replace_texts(const char *key) {
    if (plan::member(payload_, key) == nullptr) return;
    const Json &texts = plan::array_member(payload_, key, "payload");
    for (const Json &text : texts) {
        if (!text.is_string()) throw Problem{fmt::format("payload.{} holds something else than texts", key)};
    }
    state_[key] = texts;
}

void Update::add_artifacts() {
    const Json &added = plan::array_member(payload_, "artifacts", "payload");
    for (std::size_t i = 0; i < added.size(); ++i) {
        const std::string where = fmt::format("payload.artifacts[{}]", i);
        if (!added[i].is_object()) throw Problem{where + " is no object"};
        plan::expect_one_of(plan::kArtifactTypes, plan::text_member(added[i], "type", where), where + ".type");
        plan::text_member(added[i], "path", where);
        plan::text_member(added[i], "summary", where);
        list("artifacts").push_back(added[i]);
    }
}

void Update::apply() {
    check_not_empty();
    if (const Json *agent = plan::object_member(payload_, "agent", "payload")) {
        agent_ = plan::text_member(*agent, "name", "payload.agent");
    }
    change_tasks("tasks", false);
    change_tasks("update_tasks", true);
    add_tasks();
    replace_texts("context_notes");
    replace_texts("next_steps");
    add_artifacts();
    if (plan::member(payload_, "final_summary") != nullptr) {
        state_["final_summary"] = plan::text_member(payload_, "final_summary", "payload");
    }
    if (plan::member(payload_, "done") != nullptr) state_["done"] = plan::flag_member(payload_, "done", "payload");
}

// There is one signal of this kind, open until an update comes through a queue that moves; `attempts` counts its
// stalls.
void Update::note_queue(const std::optional<QueueStallSignal> &stall) {
    Json *known = nullptr;
    for (Json &signal : list("signals")) {
        const Json *kind = plan::member(signal, "kind");
        if (kind == nullptr || *kind != "queue_stall") continue;
        plan::flag_member(signal, "open", "signal");
        if (known != nullptr) (*known)["open"] = false;
        known = &signal;
        signal["open"] = stall.has_value();
    }
    if (!stall) return;
    if (known != nullptr) {
        const Json *attempts = plan::member(*known, "attempts");
        const bool counted = attempts != nullptr && attempts->is_number_unsigned();
        (*known)["attempts"] = (counted ? attempts->get<std::uint64_t>() : 0) + 1;
        (*known)["message"] = stall->message;
        return;
    }
    list("signals").push_back({{"id", fmt::format("queue_stall-{}", state_["version"].get<std::uint64_t>() + 1)},
                               {"type", "system"},
                               {"kind", "queue_stall"},
                               {"level", "blocker"},
                               {"open", true},
                               {"title", "The lock's queue did not move"},
                               {"message", stall->message},
                               {"link", nullptr},
                               {"extra", Json::object()},
                               {"attempts", 1}});
}

bool Update::is_startable(const Json &one) {
    if (plan::text_member(one, "status", "task") != "TODO") return false;
    for (const Json &other : plan::array_member(one, "depends_on", "task")) {
        const Json *needed = task(other.get<std::int64_t>());
        if (needed != nullptr && plan::text_member(*needed, "status", "task") != "DONE") return false;
    }
    return true;
}

void Update::decide_what_is_now() {
    Json now = {{"reason", "idle"}, {"task_id", nullptr}, {"signal_id", nullptr}};
    for (const Json &signal : list("signals")) {
        const Json *level = plan::member(signal, "level");
        if (level == nullptr || *level != "blocker" || !plan::flag_member(signal, "open", "signal")) continue;
        now["reason"] = "ci_blocker";
        const Json *id = plan::member(signal, "id");
        if (id != nullptr) now["signal_id"] = *id;
        state_["now"] = now;
        return;
    }
    const Json *next = nullptr;
    bool all_over = !list("tasks").empty();
    for (const Json &one : list("tasks")) {
        const std::string status = plan::text_member(one, "status", "task");
        all_over = all_over && (status == "DONE" || status == "OUT_OF_SCOPE" || status == "SKIPPED");
        if (status == "IN_PROGRESS") {
            next = &one;
            break;
        }
    }
    for (const Json &one : list("tasks")) {
        if (next == nullptr && is_startable(one)) next = &one;
    }
    if (next != nullptr) {
        now["reason"] = "task";
        now["task_id"] = (*next)["id"];
    } else if (all_over) {
        now["reason"] = "completed";
    }
    state_["now"] = now;
}

std::string Update::plan_text() const {
    std::string text = fmt::format("# {}\n", plan::text_member(state_, "title", ""));
    const std::string purpose = plan::text_member(state_, "purpose", "");
    if (!purpose.empty()) text += fmt::format("\n{}\n", purpose);
    text += "\n## Tasks\n\n";
    for (const Json &one : plan::array_member(state_, "tasks", "")) {
        const std::string status = plan::text_member(one, "status", "task");
        text +=
            fmt::format("- [{}] {}. {} ({}{})\n", status == "DONE" ? 'x' : ' ', one["id"].get<std::int64_t>(),
                        plan::text_member(one, "title", "task"), status,
                        one.contains("type") && one["type"].is_string() ? ", " + one["type"].get<std::string>() : "");
    }
    for (const auto &[key, title] : {std::pair{"next_steps", "Next steps"}, std::pair{"context_notes", "Notes"}}) {
        const Json &lines = plan::array_member(state_, key, "");
        if (!lines.empty()) text += fmt::format("\n## {}\n\n", title);
        for (const Json &line : lines) {
            if (line.is_string()) text += fmt::format("- {}\n", line.get<std::string>());
        }
    }
    const std::string summary = plan::text_member(state_, "final_summary", "");
    if (!summary.empty()) text += fmt::format("\n## Summary\n\n{}\n", summary);
    return text;
}

PlanUpdate Update::finish() {
    const std::int64_t version = state_["version"].get<std::int64_t>() + 1;
    state_["version"] = version;
    state_["last_updated_at"] = now_;
    decide_what_is_now();
    return {state_.dump(2) + '\n', plan_text(), version, agent_};
}

}  // namespace

Result<PlanUpdate> apply_update(std::string_view state, std::string_view payload, std::string_view session,
                                std::int64_t utc_ns, const std::optional<QueueStallSignal> &stall,
                                ValidationFailure *refused) {
    const auto refuse = [&](const Problem &problem, std::string_view document) {
        Error error{fmt::format("{}{}", document, problem.message)};
        if (refused == nullptr) return error;
        *refused = {fmt::format("{}{}", document, problem.where), problem.expected, problem.got};
        if (!problem.where.empty()) return error;
        // Its first word is the place: "payload.tasks[2] …".
        refused->where = error.message.substr(0, error.message.find_first_of(" :"));
        refused->expected = error.message;
        return error;
    };
    try {
        Json new_payload = plan::parse_object(payload, "payload");
        Json old_state = plan::parse_object(state, "state.json");
        try {
            plan::check_state(old_state);
        } catch (const Problem &problem) {
            return refuse(problem, "state.json: ");
        }
        Update update(std::move(old_state), std::move(new_payload), utc_ns);
        update.check_addressee(session);
        update.apply();
        update.note_queue(stall);
        return update.finish();
    } catch (const Problem &problem) {
        return refuse(problem, "");
    } catch (const Json::exception &error) {
        return refuse(Problem{fmt::format("the plan cannot be changed: {}", error.what())}, "");
    }
}

}  // namespace planloop
