#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "lockcore/clock.h"
#include "lockcore/plan_state.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::int64_t kNow = 1'795'334'402'350'123'456;

// Two tasks, the second waits for the first, and what this program does not know.
Json plan() {
    NewPlan fresh;
    fresh.session = "s";
    fresh.name = "n";
    fresh.utc_ns = kNow;
    Json state = Json::parse(new_plan_state(fresh));
    state["version"] = 7;
    state["unknown"] = {{"deep", {1, 2.5, "three", nullptr}}};
    state["tasks"] = Json::parse(R"([
        {"id":1,"title":"one","type":"fix","status":"TODO","depends_on":[],"mine":"kept"},
        {"id":5,"title":"two","type":"doc","status":"TODO","depends_on":[1]}])");
    return state;
}

Json payload(Json fields) {
    fields["session"] = "s";
    return fields;
}

Json updated(const Json &state, const Json &fields) {
    const auto update = apply_update(state.dump(), payload(fields).dump(), "s", kNow);
    EXPECT_TRUE(update) << update.error().message;
    return update ? Json::parse(update->state) : Json();
}

TEST(PlanUpdate, AppliesEachPartOfAPayload) {
    const Json now = updated(plan(), Json::parse(R"({
        "last_seen_version":"7",
        "tasks":[{"id":1,"status":"DONE","new_title":"uno"}],
        "update_tasks":[{"id":5,"new_type":"test","new_title":"due","status":"IN_PROGRESS"}],
        "add_tasks":[{"title":"three","depends_on":[5]},{"title":"four","type":"chore","depends_on":[6]}],
        "context_notes":["a note"],"next_steps":["a step","another"],
        "artifacts":[{"type":"log","path":"x.log","summary":"it ran","more":1}],
        "agent":{"name":"somebody"},"final_summary":"so far","done":false})"));
    EXPECT_EQ(now["version"], 8);
    EXPECT_EQ(now["last_updated_at"], format_utc(kNow));
    EXPECT_EQ(now["tasks"][0]["status"], "DONE");
    EXPECT_EQ(now["tasks"][0]["title"], "uno");
    EXPECT_EQ(now["tasks"][0]["mine"], "kept");
    EXPECT_EQ(now["tasks"][1]["type"], "test");
    EXPECT_EQ(now["tasks"][2]["id"], 6) << "the highest id and one";
    EXPECT_EQ(now["tasks"][2]["status"], "TODO");
    EXPECT_EQ(now["tasks"][3]["id"], 7);
    EXPECT_EQ(now["tasks"][3]["depends_on"], Json::parse("[6]")) << "on one of the same payload";
    EXPECT_EQ(now["context_notes"], Json::parse(R"(["a note"])"));
    EXPECT_EQ(now["next_steps"].size(), 2u);
    EXPECT_EQ(now["artifacts"][0]["more"], 1);
    EXPECT_EQ(now["final_summary"], "so far");
    EXPECT_EQ(now["now"]["reason"], "task");
    EXPECT_EQ(now["now"]["task_id"], 5);
}

TEST(PlanUpdate, KeepsFieldsThatItDoesNotKnowAndTheirOrder) {
    const Json before = plan();
    const Json after = updated(before, {{"next_steps", {"x"}}});
    EXPECT_EQ(after["unknown"].dump(), before["unknown"].dump());
    EXPECT_EQ(after["tasks"].dump(), before["tasks"].dump());
    std::vector<std::string> names;
    std::vector<std::string> names_before;
    for (const auto &[name, value] : after.items()) names.push_back(name);
    for (const auto &[name, value] : before.items()) names_before.push_back(name);
    EXPECT_EQ(names, names_before);
}

TEST(PlanUpdate, DecidesWhatIsNow) {
    struct Case {
        const char *what;
        const char *state;
        const char *reason;
        int task;
    };
    const Case cases[] = {
        {"nothing to do", R"({"tasks":[]})", "idle", 0},
        {"the first that can start",
         R"({"tasks":[{"id":1,"title":"a","status":"TODO","depends_on":[2]},{"id":2,"title":"b","status":"TODO"}]})",
         "task", 2},
        {"one in progress",
         R"({"tasks":[{"id":1,"title":"a","status":"TODO"},{"id":2,"title":"b","status":"IN_PROGRESS"}]})", "task", 2},
        {"all over",
         R"({"tasks":[{"id":1,"title":"a","status":"DONE"},{"id":2,"title":"b","status":"SKIPPED"},{"id":3,"title":"c","status":"OUT_OF_SCOPE"}]})",
         "completed", 0},
        {"failed is not over", R"({"tasks":[{"id":1,"title":"a","status":"FAILED"}]})", "idle", 0},
        {"nothing can start",
         R"({"tasks":[{"id":1,"title":"a","status":"TODO","depends_on":[2]},{"id":2,"title":"b","status":"BLOCKED"}]})",
         "idle", 0},
        {"a blocker",
         R"({"tasks":[{"id":1,"title":"a","status":"TODO"}],"signals":[{"id":"x","level":"high","open":true},{"id":"y","level":"blocker","open":true}]})",
         "ci_blocker", 0},
        {"a closed blocker",
         R"({"tasks":[{"id":1,"title":"a","status":"TODO"}],"signals":[{"id":"y","level":"blocker","open":false}]})",
         "task", 1},
    };
    for (const Case &one : cases) {
        Json state = Json::parse(one.state);
        state["version"] = 1;
        const Json now = updated(state, {{"context_notes", Json::array()}})["now"];
        EXPECT_EQ(now["reason"], one.reason) << one.what;
        EXPECT_EQ(now["task_id"], one.task == 0 ? Json() : Json(one.task)) << one.what;
        if (std::string(one.reason) == "ci_blocker") {
            EXPECT_EQ(now["signal_id"], "y");
        }
    }
}

TEST(PlanUpdate, RefusesPayloadsThatDoNotFitAndSaysWhy) {
    struct Case {
        std::string payload;
        const char *says;
    };
    const std::string deep =
        R"({"session":"s","context_notes":)" + std::string(5000, '[') + std::string(5000, ']') + "}";
    const Case cases[] = {
        {"", "payload is empty"},
        {" \n", "payload is empty"},
        {"{", "payload is no valid JSON (at line 1"},
        {"[1]", "payload is no JSON object"},
        {"{\"session\":\"s\",\"context_notes\":[\"\xff\"]}", "no valid JSON"},
        {deep, "nested too deep"},
        {R"({})", "payload.session is missing"},
        {R"({"session":3,"done":true})", "payload.session is no text"},
        {R"({"session":"t","done":true})", "payload is for session 't', not 's'"},
        {R"({"session":"s"})", "payload is empty: it changes nothing"},
        {R"({"session":"s","tasks":[],"agent":{"name":"x"},"last_seen_version":7})", "it changes nothing"},
        {R"({"session":"s","done":true,"last_seen_version":6})", "version 6, the plan is at version 7"},
        {R"({"session":"s","done":true,"last_seen_version":"8"})", "version 8, the plan is at version 7"},
        {R"({"session":"s","done":true,"last_seen_version":"seven"})", "version seven"},
        {R"({"session":"s","done":true,"last_seen_version":[7]})", "last_seen_version is no version"},
        {R"({"session":"s","tasks":[{"id":2,"status":"DONE"}]})", "payload.tasks[0]: there is no task 2"},
        {R"({"session":"s","tasks":[{"id":1},{"id":0}]})", "payload.tasks[1].id is no positive"},
        {R"({"session":"s","tasks":[{"id":"1"}]})", "payload.tasks[0].id is no positive"},
        {R"({"session":"s","tasks":[{"id":1.5}]})", "payload.tasks[0].id is no positive"},
        {R"({"session":"s","tasks":[{"id":99999999999999999999}]})", "payload.tasks[0].id is no positive"},
        {R"({"session":"s","tasks":[{"status":"DONE"}]})", "payload.tasks[0].id is missing"},
        {R"({"session":"s","tasks":[1]})", "payload.tasks[0] is no object"},
        {R"({"session":"s","tasks":{"id":1}})", "payload.tasks is no list"},
        {R"({"session":"s","tasks":[{"id":1,"status":"done"}]})", "status is none of: TODO IN_PROGRESS"},
        {R"({"session":"s","tasks":[{"id":1,"new_title":""}]})", "new_title is empty"},
        {R"({"session":"s","update_tasks":[{"id":9}]})", "payload.update_tasks[0]: there is no task 9"},
        {R"({"session":"s","update_tasks":[{"id":1,"new_type":"bug"}]})", "new_type is none of: test fix"},
        {R"({"session":"s","add_tasks":[{"type":"fix"}]})", "payload.add_tasks[0].title is missing"},
        {R"({"session":"s","add_tasks":[{"title":7}]})", "title is no text"},
        {R"({"session":"s","add_tasks":[{"title":"x","type":"bug"}]})", "type is none of"},
        {R"({"session":"s","add_tasks":[{"title":"x","depends_on":[6]}]})", "task 6 would depend on itself"},
        {R"({"session":"s","add_tasks":[{"title":"x","depends_on":[3]}]})", "there is no task 3"},
        {R"({"session":"s","add_tasks":[{"title":"x","depends_on":["1"]}]})", "something else than ids"},
        {R"({"session":"s","artifacts":[{"path":"x"}]})", "type is none of: diff log file url other"},
        {R"({"session":"s","artifacts":["x"]})", "payload.artifacts[0] is no object"},
        {R"({"session":"s","context_notes":"x"})", "payload.context_notes is no list"},
        {R"({"session":"s","next_steps":[1]})", "something else than texts"},
        {R"({"session":"s","done":"yes"})", "payload.done is neither true nor false"},
        {R"({"session":"s","final_summary":[]})", "payload.final_summary is no text"},
        {R"({"session":"s","done":true,"agent":"x"})", "payload.agent is no object"},
    };
    for (const Case &one : cases) {
        const auto update = apply_update(plan().dump(), one.payload, "s", kNow);
        ASSERT_FALSE(update) << one.payload.substr(0, 100);
        EXPECT_NE(update.error().message.find(one.says), std::string::npos) << one.payload.substr(0, 100) << "\n"
                                                                            << update.error().message;
        EXPECT_EQ(update.error().message.find('\n'), std::string::npos);
    }
}

TEST(PlanUpdate, RefusesStatesThatAreNone) {
    struct Case {
        std::string state;
        const char *says;
    };
    std::string torn = plan().dump();
    torn.resize(torn.size() / 2);
    const Case cases[] = {
        {"", "state.json is empty"},
        {torn, "state.json is no valid JSON"},
        {"null", "state.json is no JSON object"},
        {std::string(100'000, '['), "nested too deep"},
        {R"({"tasks":[]})", "version is no whole number"},
        {R"({"version":"1"})", "version is no whole number"},
        {R"({"version":-1})", "version is no whole number"},
        {R"({"version":1e3})", "version is no whole number"},
        {R"({"version":1,"schema_version":2})", "made by another planloop"},
        {R"({"version":1,"session":"other"})", "state.json is of session 'other'"},
        {R"({"version":1,"tasks":{}})", "tasks is no list"},
        {R"({"version":1,"tasks":["x"]})", "tasks[0] is no object"},
        {R"({"version":1,"tasks":[{"title":"x"}]})", "tasks[0].id is missing"},
        {R"({"version":1,"tasks":[{"id":1},{"id":1}]})", "tasks[1].id 1 is there twice"},
        {R"({"version":1,"tasks":[{"id":1,"depends_on":["x"]}]})", "depends_on holds something else"},
        {R"({"version":1,"signals":[1]})", "signals[0] is no object"},
        {R"({"version":1,"signals":[{"level":"blocker","open":"yes"}]})", "open is neither"},
        {R"({"version":1,"artifacts":"none"})", "artifacts is no list"},
        {R"({"version":1,"now":"idle"})", "now is no object"},
        {R"({"version":1,"title":["x"]})", "title is no text"},
    };
    for (const Case &one : cases) {
        const auto update = apply_update(one.state, R"({"session":"s","context_notes":["x"]})", "s", kNow);
        ASSERT_FALSE(update) << one.state.substr(0, 100);
        EXPECT_NE(update.error().message.find(one.says), std::string::npos) << update.error().message;
    }
}

TEST(PlanUpdate, ReadsListsThatAreNullOrMissing) {
    const Json now = updated(Json::parse(R"({"version":1,"tasks":null,"artifacts":null,"signals":null})"),
                             Json::parse(R"({"add_tasks":[{"title":"x"}],"artifacts":[{"type":"url"}]})"));
    EXPECT_EQ(now["tasks"][0]["id"], 1);
    EXPECT_EQ(now["artifacts"].size(), 1u);
}

TEST(PlanUpdate, AQueueThatDidNotMoveIsOneBlockerUntilItMovesAgain) {
    Json state = plan();
    state["signals"] = {{{"id", "ci"}, {"kind", "build"}, {"level", "high"}, {"open", true}}};
    const auto update = [&](const std::optional<QueueStallSignal> &stall) {
        const auto done = apply_update(state.dump(), payload({{"next_steps", {"x"}}}).dump(), "s", kNow, stall);
        ASSERT_TRUE(done) << done.error().message;
        state = Json::parse(done->state);
    };
    const auto expect = [&](bool open, int attempts, const char *message) {
        ASSERT_EQ(state["signals"].size(), 2u);
        EXPECT_EQ(state["signals"][0]["open"], true) << "another's signal is another's to close";
        const Json &signal = state["signals"][1];
        EXPECT_EQ(signal["kind"], "queue_stall");
        EXPECT_EQ(signal["level"], "blocker");
        EXPECT_EQ(signal["open"], open);
        EXPECT_EQ(signal["message"], message);
        EXPECT_EQ(signal["attempts"], attempts);
        EXPECT_EQ(state["now"]["reason"], open ? "ci_blocker" : "task");
    };
    update({});
    EXPECT_EQ(state["signals"].size(), 1u);
    update(QueueStallSignal{"who and how long"});
    expect(true, 1, "who and how long");
    update(QueueStallSignal{"again"});
    expect(true, 2, "again");
    update({});
    expect(false, 2, "again");
    update(QueueStallSignal{"later"});
    expect(true, 3, "later");
}

TEST(PlanUpdate, WritesThePlanForPeople) {
    const auto update =
        apply_update(plan().dump(), payload({{"tasks", {{{"id", 1}, {"status", "DONE"}}}}}).dump(), "s", kNow);
    ASSERT_TRUE(update);
    EXPECT_NE(update->plan.find("- [x] 1. one (DONE, fix)\n- [ ] 5. two (TODO, doc)\n"), std::string::npos)
        << update->plan;
}

}  // namespace
}  // namespace planloop
