#include "analysis/session_records.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "lockcore/record_files.h"
#include "tests/support/temp_folder.h"

namespace planloop::analysis {
namespace {

class SessionRecordsTest : public testing::Test {
  protected:
    void put(const std::string &folder, const std::string &name, std::string_view content) const {
        std::filesystem::create_directories(folder);
        std::ofstream(folder + '/' + name) << content;
    }
    test::TempFolder folder_;
    Session session_{"s", folder_.path()};
};

TEST_F(SessionRecordsTest, ASessionWithoutAnyIsEmpty) {
    const SessionRecords records = read_session_records(session_);
    EXPECT_TRUE(records.traces.empty());
    EXPECT_TRUE(records.errors.empty());
    EXPECT_TRUE(records.notes.empty());
}

TEST_F(SessionRecordsTest, ReadsATraceThatPythonWrote) {
    put(traces_dir(session_), "tr_1.json",
        R"({"trace_id":"tr_1","command":["update","--file"],"started_at":"2026-11-22T08:00:00","completed_at":null,
            "duration_ms":12.5,"status":"ok","spans":[{"name":"load","start_time":"2026-11-22T08:00:00.5",
            "end_time":"2026-11-22T08:00:01Z","duration_ms":500,"metadata":{"size":3,"who":"me"}}]})");
    const SessionRecords records = read_session_records(session_);
    ASSERT_EQ(records.traces.size(), 1u);
    const RecordedTrace &trace = records.traces[0];
    EXPECT_EQ(trace.command.size(), 2u);
    EXPECT_EQ(trace.duration_ns, 12'500'000);
    ASSERT_EQ(trace.spans.size(), 1u);
    EXPECT_EQ(trace.spans[0].begin_utc_ns - trace.begin_utc_ns, 500'000'000);
    EXPECT_EQ(trace.spans[0].duration_ns, 500'000'000);
    EXPECT_FALSE(trace.spans[0].open);
    ASSERT_EQ(trace.spans[0].metadata.size(), 2u);
    EXPECT_EQ(trace.spans[0].metadata[0].second, "3");
    EXPECT_EQ(trace.spans[0].metadata[1].second, "me");
}

TEST_F(SessionRecordsTest, TimesToTheNanosecondCountUnlessTheClockStepped) {
    put(traces_dir(session_), "tr_1.json",
        R"({"trace_id":"tr_1","started_at":"2026-11-22T08:00:00Z","completed_at":"2026-11-22T08:00:00.012735235Z",
            "duration_ms":12.735,"spans":[{"name":"stepped","start_time":"2026-11-22T08:00:00Z",
            "end_time":"2026-11-22T07:59:00Z","duration_ms":0.339}]})");
    const SessionRecords records = read_session_records(session_);
    ASSERT_EQ(records.traces.size(), 1u);
    EXPECT_EQ(records.traces[0].duration_ns, 12'735'235);
    ASSERT_EQ(records.traces[0].spans.size(), 1u);
    EXPECT_EQ(records.traces[0].spans[0].duration_ns, 339'000);
}

TEST_F(SessionRecordsTest, WhatHasTheWrongTypeIsAsIfItWereNotThere) {
    put(traces_dir(session_), "tr_2.json",
        R"({"trace_id":7,"command":"no","started_at":12,"duration_ms":"long","spans":[1,{"name":[],"pid":"x",
            "metadata":[]}]})");
    const SessionRecords records = read_session_records(session_);
    ASSERT_EQ(records.traces.size(), 1u);
    EXPECT_EQ(records.traces[0].trace_id, "tr_2");  // its file's name
    ASSERT_EQ(records.traces[0].spans.size(), 1u);
    EXPECT_TRUE(records.traces[0].spans[0].open);
}

TEST_F(SessionRecordsTest, WhatCannotBeReadIsToldAndTheRestIsRead) {
    put(traces_dir(session_), "tr_a.json", "{\"trace_id\":");
    put(traces_dir(session_), "tr_b.json", "[]");
    put(traces_dir(session_), "tr_c.json", R"({"trace_id":"tr_c"})");
    put(errors_dir(session_), "tr_c_error.json", R"({"trace_id":"tr_c","error_type":"E","error_message":"m"})");
    put(errors_dir(session_), "tr_c_state.json", "{}");
    const SessionRecords records = read_session_records(session_);
    ASSERT_EQ(records.traces.size(), 1u);
    ASSERT_EQ(records.errors.size(), 1u);
    EXPECT_EQ(records.errors[0].file, "tr_c");
    EXPECT_EQ(records.errors[0].type, "E");
    ASSERT_EQ(records.notes.size(), 2u);
    EXPECT_NE(records.notes[0].find("tr_a.json"), std::string::npos);
}

}  // namespace
}  // namespace planloop::analysis
