#include "lockcore/state_diff.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <string>

#include "lockcore/operation_trace.h"
#include "lockcore/record_files.h"
#include "lockcore/transcript.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

TEST(StateDiff, NamesWhatChangedByItsPath) {
    struct Case {
        std::string before, after, changes;
    };
    const Case cases[] = {
        {R"({"a":1})", R"({"a":1})", "{}"},
        {R"({"a":1})", R"({"a":2})", R"({"a":{"old":1,"new":2}})"},
        {R"({"tasks":[{"status":"TODO"},{"status":"TODO"}]})", R"({"tasks":[{"status":"TODO"},{"status":"DONE"}]})",
         R"({"tasks[1].status":{"old":"TODO","new":"DONE"}})"},
        {R"({})", R"({"a":{"b":1}})", R"({"a":{"old":null,"new":{"b":1}}})"},
        {R"({"a":[1,2]})", R"({"a":[1]})", R"({"a[1]":{"old":2,"new":null}})"},
        {R"({"a":{"b":1}})", R"({"a":[1]})", R"({"a":{"old":{"b":1},"new":[1]}})"},
        {R"({"a.b":{"":1}})", R"({"a.b":{"":2}})", R"({"[\"a.b\"][\"\"]":{"old":1,"new":2}})"},
    };
    for (const Case &each : cases) {
        const auto changes = state_changes(each.before, each.after);
        ASSERT_TRUE(changes) << each.before;
        EXPECT_EQ(*changes, each.changes);
    }
}

TEST(StateDiff, WhatIsNoObjectIsAnError) {
    for (const char *text : {"", "[]", "{", "\xff", "null"}) {
        EXPECT_FALSE(state_changes(text, "{}")) << text;
        EXPECT_FALSE(state_changes("{}", text)) << text;
    }
    EXPECT_FALSE(state_changes(std::string(100'000, '['), "{}"));
}

TEST(StateDiff, RecordsGoBesideEachOtherWithoutSecrets) {
    const test::TempFolder folder;
    setenv("PLANLOOP_HOME", folder.path().c_str(), 1);
    unsetenv("PLANLOOP_NO_RECORDING");
    unsetenv("PLANLOOP_TRACE_ID");
    unsetenv("TRACEPARENT");
    const Session session = *create_session("s");
    const std::string id = start_operation_trace("update");
    for (const std::string &stem : {id, id + "_2"}) {
        const auto path = record_state_diff(session, R"({"n":1,"token":"abc"})", R"({"n":2,"token":"abd"})");
        ASSERT_TRUE(path);
        EXPECT_EQ(*path, diffs_dir(session) + '/' + stem + "_diff.json");
        const Json diff = Json::parse(*read_record(*path));
        EXPECT_EQ(diff["before_file"], stem + "_pre.json");
        EXPECT_EQ(diff["changes"].dump(), R"({"n":{"old":1,"new":2}})") << "a secret that changed is none to be seen";
        EXPECT_EQ(*read_record(diffs_dir(session) + '/' + stem + "_post.json"), R"({"n":2,"token":"[REDACTED]"})");
        LlmCall call;
        call.prompt = "bytes \xff and Bearer abcdef123";
        call.error = "timed out";
        const auto transcript = record_llm_call(session, call);
        ASSERT_TRUE(transcript);
        EXPECT_EQ(*transcript, transcripts_dir(session) + '/' + stem + "_llm.json");
        const Json said = Json::parse(*read_record(*transcript));
        EXPECT_TRUE(said["response"].is_null());
        EXPECT_EQ(said["request"]["prompt"].get<std::string>().find("abcdef123"), std::string::npos);
    }
    EXPECT_EQ(*record_state_diff(session, R"({"n":1})", R"({"n":1})"), "") << "nothing changed";
}

}  // namespace
}  // namespace planloop
