#include "lockcore/span.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/file_lock.h"
#include "lockcore/record_files.h"
#include "lockcore/session_lock.h"
#include "lockcore/trace_file.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

class SpanTest : public testing::Test {
  protected:
    SpanTest() {
        setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);
        unsetenv("PLANLOOP_NO_RECORDING");
        unsetenv("PLANLOOP_TRACE_ID");
        unsetenv("TRACEPARENT");
        session_ = *create_session("s");
    }

    Json trace(const std::string &trace_id) const {
        const auto text = read_record(traces_dir(session_) + '/' + trace_id + ".json");
        EXPECT_TRUE(text) << (text ? "" : text.error().message);
        Json json = text ? Json::parse(*text, nullptr, false) : Json();
        EXPECT_TRUE(json.is_object());
        return json;
    }
    static const Json &span(const Json &trace, const std::string &name) {
        static const Json none;
        for (const Json &each : trace["spans"]) {
            if (each["name"] == name) return each;
        }
        ADD_FAILURE() << "no span " << name << " in " << trace.dump(2);
        return none;
    }
    std::vector<std::string> open_journals() const {
        auto names = list_records(open_traces_dir(session_), "");
        std::erase(names, "join");
        return names;
    }
    std::vector<Json> metrics() const {
        std::vector<Json> found;
        std::ifstream in(performance_file(session_));
        for (std::string line; std::getline(in, line);) found.push_back(Json::parse(line));
        return found;
    }

    test::TempFolder folder_;
    Session session_;
};

TEST_F(SpanTest, NestsAndNotesMetadataTimesAndMetrics) {
    const std::string id = start_operation_trace("update");
    const std::int64_t before = utc_now_ns();
    {
        OperationRecording recording(session_, {"planloop", "update", "--password", "x"});
        EXPECT_EQ(recording.trace_id(), id);
        const Span outer("load_state", {{"size", std::size_t{12}}, {"path", "/a"}, {"token", "abc"}, {"ok", true}});
        Span inner("parse");
        inner.note("ratio", 0.5);
        inner.end();
        const Span last("check");
    }
    const std::int64_t after = utc_now_ns();
    const Json json = trace(id);
    EXPECT_EQ(json["command"].size(), 4U);
    EXPECT_EQ(json["status"], "ok");
    EXPECT_EQ(json["spans"].size(), 4U);
    EXPECT_EQ(json["spans"][0]["name"], "update");
    EXPECT_FALSE(json["spans"][0].contains("parent"));
    EXPECT_EQ(span(json, "load_state")["parent"], "update");
    EXPECT_EQ(span(json, "load_state")["metadata"].dump(), R"({"size":12,"path":"/a","token":"[REDACTED]","ok":true})");
    EXPECT_EQ(span(json, "parse")["parent"], "load_state");
    EXPECT_EQ(span(json, "parse")["metadata"]["ratio"], 0.5);
    EXPECT_EQ(span(json, "check")["parent"], "load_state");
    for (const Json &each : json["spans"]) {
        const auto from = parse_utc(each["start_time"].get<std::string>());
        const auto to = parse_utc(each["end_time"].get<std::string>());
        ASSERT_TRUE(from && to);
        constexpr std::int64_t kClockStep = 1'000'000;  // the two clocks are read one after the other
        EXPECT_GE(*from, before - kClockStep);
        EXPECT_LE(*to, after + kClockStep);
        EXPECT_NEAR(each["duration_ms"].get<double>(), static_cast<double>(*to - *from) / 1e6, 0.001);
    }
    EXPECT_TRUE(open_journals().empty());
    const auto measured = metrics();
    ASSERT_EQ(measured.size(), 2U);
    EXPECT_EQ(measured[0]["metric"], "command.duration");
    EXPECT_EQ(measured[0]["tags"]["trace_id"], id);
    EXPECT_EQ(measured[0]["tags"]["command"], "update");
    EXPECT_EQ(measured[1]["metric"], "memory.rss_mb");
    EXPECT_GT(measured[1]["value"].get<double>(), 1);
}

TEST_F(SpanTest, NotesTheExceptionThatLeavesIt) {
    const std::string id = start_operation_trace("update");
    try {
        const OperationRecording recording(session_);
        const Span fine("fine");
        const Span failing("failing");
        throw std::runtime_error("broken");
    } catch (const std::runtime_error &) {
    }
    const Json json = trace(id);
    EXPECT_EQ(json["status"], "error");
    EXPECT_EQ(span(json, "failing")["status"], "error");
}

TEST_F(SpanTest, GoesToAnotherThreadOnRequestOnly) {
    const std::string id = start_operation_trace("update");
    {
        const OperationRecording recording(session_);
        const Span outer("outer");
        std::thread([context = current_span()] {
            const SpanScope scope(context);
            const Span part("part");
            EXPECT_EQ(current_trace().operation, "update");
        }).join();
        std::thread([] { const Span unrelated("unrelated"); }).join();
    }
    const Json json = trace(id);
    EXPECT_EQ(json["spans"].size(), 3U);
    EXPECT_EQ(span(json, "part")["parent"], "outer");
    EXPECT_NE(span(json, "part")["tid"], span(json, "outer")["tid"]);
}

TEST_F(SpanTest, ManySpansOfManyThreadsAreAllThere) {
    const std::string id = start_operation_trace("update");
    constexpr int kThreads = 4;
    constexpr int kSpans = 3000;
    {
        const OperationRecording recording(session_);
        std::vector<std::thread> threads;
        for (int t = 0; t < kThreads; ++t) {
            threads.emplace_back([context = current_span()] {
                const SpanScope scope(context);
                for (int i = 0; i < kSpans; ++i) const Span part("part", {{"i", i}});
            });
        }
        for (std::thread &thread : threads) thread.join();
    }
    const Json json = trace(id);
    EXPECT_EQ(json["spans"].size(), 1U + kThreads * kSpans);
    EXPECT_EQ(json["spans_dropped"], 0);
    std::vector<int> seen(kSpans);
    for (const Json &each : json["spans"]) {
        if (each["name"] == "part") ++seen[each["metadata"]["i"].get<std::size_t>()];
    }
    EXPECT_EQ(std::count(seen.begin(), seen.end(), kThreads), kSpans);
}

TEST_F(SpanTest, MoreSpansThanFitAreCounted) {
    const std::string id = start_operation_trace("update");
    {
        const OperationRecording recording(session_);
        for (std::uint32_t i = 0; i < SpanJournal::kMostSlots + 10; ++i) const Span part("p");
    }
    const Json json = trace(id);
    EXPECT_EQ(json["spans"].size(), SpanJournal::kMostSlots);
    EXPECT_EQ(json["spans_dropped"], 11);
}

TEST_F(SpanTest, OddNamesAndBytesBecomeValidJson) {
    const std::string id = start_operation_trace("update");
    const std::string longest(5000, 'n');
    {
        const OperationRecording recording(session_);
        const Span a(std::string(100, 'x'));
        const Span b("\xff\"\\\n", {{"bytes \xfe", "\x80\xff"}, {"long", longest}});
        const Span c("");
        const Span d(longest);
    }
    const Json json = trace(id);
    EXPECT_EQ(json["spans"][1]["name"], std::string(100, 'x'));
    EXPECT_EQ(json["spans"][2]["metadata"].size(), 2U);
    EXPECT_EQ(json["spans"].size(), 5U);
}

TEST_F(SpanTest, WithoutAnOperationNothingIsWritten) {
    { const Span span("alone", {{"a", 1}}); }
    EXPECT_TRUE(list_records(traces_dir(session_), ".json").empty());
}

TEST_F(SpanTest, RefusedOrSwitchedOffNothingIsWritten) {
    setenv("PLANLOOP_NO_RECORDING", "1", 1);
    const auto run = [&] {
        start_operation_trace("update");
        const OperationRecording recording(session_);
        const Span span("part", {{"a", 1}});
    };
    run();
    unsetenv("PLANLOOP_NO_RECORDING");
    DevMode off;
    off.features = {false, false, false};
    ASSERT_TRUE(write_dev_mode(off));
    run();
    EXPECT_NE(access(traces_dir(session_).c_str(), F_OK), 0);
    EXPECT_NE(access(performance_file(session_).c_str(), F_OK), 0);
    off.features.profiling = true;
    ASSERT_TRUE(write_dev_mode(off));
    run();
    EXPECT_TRUE(list_records(traces_dir(session_), ".json").empty());
    EXPECT_EQ(metrics().size(), 2U);
}

TEST_F(SpanTest, OperationsOfOneTraceIdAreJoined) {
    const std::string id = start_operation_trace("first");
    const OperationTrace same = current_trace();
    for (int i = 0; i < 3; ++i) {
        const TraceScope scope(same);
        const OperationRecording recording(session_, {"command"});
        const Span part("part");
    }
    const Json json = trace(id);
    ASSERT_EQ(json["spans"].size(), 6U);
    for (std::size_t i = 0; i < 6; ++i) EXPECT_EQ(json["spans"][i]["id"], i + 1);
    EXPECT_EQ(json["spans"][5]["parent_id"], 5);
    EXPECT_EQ(json["completed_at"], json["spans"][4]["end_time"]);
    EXPECT_EQ(json["status"], "ok");
}

TEST_F(SpanTest, OperationsOfOneTraceIdInManyProcessesLoseNothing) {
    const std::string id = start_operation_trace("first");
    std::vector<pid_t> children;
    for (int i = 0; i < 8; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            { const OperationRecording recording(session_); }
            _exit(0);
        }
        children.push_back(child);
    }
    for (const pid_t child : children) waitpid(child, nullptr, 0);
    EXPECT_EQ(trace(id)["spans"].size(), 8U);
}

TEST_F(SpanTest, KilledInsideASpanItIsRecoveredAndMarkedUnfinished) {
    const std::string id = start_operation_trace("update");
    const pid_t child = fork();
    if (child == 0) {
        const OperationRecording recording(session_);
        { const Span done("done", {{"n", 1}}); }
        const Span open("open \xff with a name that needs a slot of its own");
        raise(SIGKILL);
    }
    waitpid(child, nullptr, 0);
    EXPECT_EQ(open_journals().size(), 1U);
    finish_abandoned_traces(session_);
    finish_abandoned_traces(session_);
    EXPECT_TRUE(open_journals().empty());
    const Json json = trace(id);
    EXPECT_EQ(json["status"], "unfinished");
    EXPECT_TRUE(json["completed_at"].is_null());
    ASSERT_EQ(json["spans"].size(), 3U);
    EXPECT_EQ(json["spans"][1]["status"], "ok");
    EXPECT_EQ(json["spans"][1]["metadata"]["n"], 1);
    EXPECT_EQ(json["spans"][2]["status"], "unfinished");
    EXPECT_TRUE(json["spans"][2]["end_time"].is_null());
}

TEST_F(SpanTest, WhoLivesIsLeftAlone) {
    start_operation_trace("update");
    const OperationRecording recording(session_);
    finish_abandoned_traces(session_);
    EXPECT_EQ(open_journals().size(), 1U);
    EXPECT_TRUE(list_records(traces_dir(session_), ".json").empty());
}

TEST_F(SpanTest, ATornOrForeignJournalIsReadAsFarAsItGoes) {
    const std::string id = start_operation_trace("update");
    if (const pid_t child = fork(); child == 0) {
        const OperationRecording recording(session_);
        for (int i = 0; i < 20; ++i) const Span part("part", {{"i", i}});
        raise(SIGKILL);
    } else {
        waitpid(child, nullptr, 0);
    }
    const std::string path = open_traces_dir(session_) + '/' + open_journals().front();
    const std::string whole = *read_record(path);
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 300; ++round) {
        std::string torn = whole.substr(0, round % 3 == 0 ? random() % whole.size() : whole.size());
        for (int i = 0; i < 20 && !torn.empty(); ++i) torn[random() % torn.size()] = static_cast<char>(random());
        std::ofstream(path, std::ios::binary | std::ios::trunc) << torn;
        const auto record = SpanJournal::read_file(path);
        if (!record) continue;
        EXPECT_FALSE(record->spans.empty());
        EXPECT_TRUE(Json::accept(trace_document(*record)));
    }
    std::ofstream(open_traces_dir(session_) + "/foreign") << "not ours";
    finish_abandoned_traces(session_);
}

TEST_F(SpanTest, AFullDiskLosesTheTraceAndNothingElse) {
    const std::string id = start_operation_trace("update");
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const rlimit none{100, 100};
        setrlimit(RLIMIT_FSIZE, &none);
        OperationRecording recording(session_);
        for (int i = 0; i < 1000; ++i) const Span part("part", {{"i", i}});
        _exit(recording.finish() ? 1 : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0) << "finish() tells, and no signal ends the process";
    EXPECT_TRUE(list_records(traces_dir(session_), "").empty());
    EXPECT_TRUE(open_journals().empty());
}

TEST_F(SpanTest, WaitsAndHoldsOfLocksAreTold) {
    const std::string id = start_operation_trace("update");
    {
        const OperationRecording recording(session_);
        SessionLock lock(session_, {.operation = "update"});
        const std::lock_guard guard(lock);
        FileLock file(folder_.path() + "/f");
        const std::lock_guard inner(file);
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    const Json json = trace(id);
    EXPECT_EQ(span(json, "lock_wait")["metadata"]["lock"], "session");
    EXPECT_GE(json["lock_hold_ms"].get<double>(), 4.0) << "2 ms of each";
    const auto measured = metrics();
    ASSERT_EQ(measured.size(), 4U);
    EXPECT_EQ(measured[3]["metric"], "lock.hold_ms");
}

}  // namespace
}  // namespace planloop
