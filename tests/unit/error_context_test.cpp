#include "lockcore/error_context.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <future>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "lockcore/file_lock.h"
#include "lockcore/operation_trace.h"
#include "lockcore/record_files.h"
#include "lockcore/session_lock.h"
#include "lockcore/span.h"
#include "lockcore/traced_lock.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

struct Odd {};
enum class Colour { red = 3 };

// Functions that stand in the stack traces.
[[gnu::noinline]] void throws_deep(int depth) {
    PLANLOOP_CAPTURE(depth);
    if (depth == 0) throw std::out_of_range("no such task");  // this line
    throws_deep(depth - 1);
    asm volatile("");
}
[[gnu::noinline]] void library_throws(std::vector<int> &values) {
    values.at(7) = 1;  // the library throws
}
[[gnu::noinline]] void catches_and_throws_on() {
    try {
        throws_deep(1);
    } catch (...) {
        throw;
    }
}
[[gnu::noinline]] void wraps() {
    try {
        throws_deep(0);
    } catch (...) {
        std::throw_with_nested(std::runtime_error("could not apply"));
    }
}

class ErrorContextTest : public testing::Test {
  protected:
    ErrorContextTest() {
        setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);
        unsetenv("PLANLOOP_NO_RECORDING");
        unsetenv("PLANLOOP_TRACE_ID");
        unsetenv("TRACEPARENT");
        session_ = *create_session("s");
        trace_id_ = start_operation_trace("update");
    }

    template <class Exception, class Function>
    void capture(Function function) const {
        EXPECT_THROW(capture_error_context(session_, function), Exception);
    }
    Json report(const std::string &stem = "") const {
        const auto text = read_record(errors_dir(session_) + '/' + (stem.empty() ? trace_id_ : stem) + "_error.json");
        EXPECT_TRUE(text) << (text ? "" : text.error().message);
        Json json = text ? Json::parse(*text, nullptr, false) : Json();
        EXPECT_TRUE(json.is_object()) << (text ? *text : "");
        return json;
    }
    std::vector<std::string> files() const { return list_records(errors_dir(session_), ""); }

    test::TempFolder folder_;
    Session session_;
    std::string trace_id_;
};

TEST_F(ErrorContextTest, TellsTypeMessageFunctionAndTheStackOfTheThrow) {
    capture<std::out_of_range>([] { throws_deep(2); });
    const Json json = report();
    EXPECT_EQ(json["trace_id"], trace_id_);
    EXPECT_EQ(json["error_type"], "std::out_of_range");
    EXPECT_EQ(json["error_message"], "no such task");
    EXPECT_NE(json["function"].get<std::string>().find("throws_deep"), std::string::npos);
    EXPECT_EQ(json["stack_trace_of"], "throw");
    const Json &first = json["stack_trace"][0];
    EXPECT_NE(first["function"].get<std::string>().find("throws_deep"), std::string::npos) << first;
    EXPECT_NE(first["file"].get<std::string>().find("error_context_test.cpp"), std::string::npos);
    EXPECT_TRUE(first["line"].is_number_integer());
    if (access(first["file"].get<std::string>().c_str(), R_OK) == 0) {
        EXPECT_NE(first["code"].get<std::string>().find("// this line"), std::string::npos) << first;
    }
    EXPECT_NE(json["stack_trace"][1]["function"].get<std::string>().find("throws_deep"), std::string::npos);
}

TEST_F(ErrorContextTest, ShowsCapturedValuesInnermostFirstAsTheyWereAtTheThrow) {
    int attempt = 1;
    const std::string task = "é and \xff";
    const std::vector<int> list{1, 2, 3};
    const std::optional<int> nothing;
    const char *null = nullptr;
    const std::string api_key = "sk";
    const std::string text = "password=hunter2";
    const std::string longest(5000, 'x');
    const Odd odd;
    const Colour colour = Colour::red;
    PLANLOOP_CAPTURE(attempt);
    PLANLOOP_CAPTURE(task);
    PLANLOOP_CAPTURE(list);
    PLANLOOP_CAPTURE(nothing);
    PLANLOOP_CAPTURE(null);
    PLANLOOP_CAPTURE(api_key);
    PLANLOOP_CAPTURE(text);
    PLANLOOP_CAPTURE(longest);
    PLANLOOP_CAPTURE(odd);
    PLANLOOP_CAPTURE(colour);
    capture<std::out_of_range>([&] {
        attempt = 2;
        struct Undo {
            int &value;
            ~Undo() { value = 3; }
        } const undo{attempt};
        throws_deep(1);
    });
    const Json json = report();
    const Json &values = json["captured_values"];
    EXPECT_EQ(values[0]["name"], "depth");
    EXPECT_EQ(values[0]["value"], "0");
    EXPECT_EQ(values[1]["value"], "1");
    EXPECT_EQ(values[2]["name"], "colour");
    const Json &locals = json["local_variables"];
    EXPECT_EQ(locals["depth"], "0");
    EXPECT_EQ(locals["attempt"], "2") << "not what it was before, nor after unwinding";
    EXPECT_EQ(locals["list"], "[1, 2, 3]");
    EXPECT_EQ(locals["nothing"], "(none)");
    EXPECT_EQ(locals["null"], "(null)");
    EXPECT_EQ(locals["api_key"], "[REDACTED]");
    EXPECT_EQ(locals["text"], "password=[REDACTED]");
    EXPECT_EQ(locals["longest"].get<std::string>().size(), 200U);
    EXPECT_EQ(locals["colour"], "3");
    EXPECT_NE(locals["odd"].get<std::string>().find("Odd, 1 bytes"), std::string::npos);
}

TEST_F(ErrorContextTest, SeesThrowsOfTheLibraryAndThoseThrownOn) {
    std::vector<int> values(2);
    capture<std::out_of_range>([&] { library_throws(values); });
    EXPECT_NE(report()["function"].get<std::string>().find("library_throws"), std::string::npos)
        << report()["function"];
    capture<std::out_of_range>([] { catches_and_throws_on(); });
    const Json thrown_on = report(trace_id_ + "_2");
    EXPECT_EQ(thrown_on["stack_trace_of"], "throw");
    EXPECT_NE(thrown_on["stack_trace"][0]["function"].get<std::string>().find("throws_deep"), std::string::npos);
}

TEST_F(ErrorContextTest, ListsNestedExceptions) {
    capture<std::runtime_error>([] { wraps(); });
    const Json json = report();
    EXPECT_EQ(json["error_message"], "could not apply");
    EXPECT_EQ(json["nested"].size(), 1U);
    EXPECT_EQ(json["nested"][0]["error_type"], "std::out_of_range");
    EXPECT_NE(json["nested"][0]["stack_trace"][0]["function"].get<std::string>().find("throws_deep"),
              std::string::npos);
}

TEST_F(ErrorContextTest, AnExceptionOfAnotherThreadHasItsStack) {
    capture<std::out_of_range>([] { std::async(std::launch::async, [] { throws_deep(0); }).get(); });
    const Json json = report();
    EXPECT_EQ(json["stack_trace_of"], "throw");
    EXPECT_NE(json["stack_trace"][0]["function"].get<std::string>().find("throws_deep"), std::string::npos);
    EXPECT_NE(json["tid"], json["pid"]);
}

TEST_F(ErrorContextTest, WhatIsNoStandardExceptionIsTold) {
    capture<int>([] { throw 42; });
    EXPECT_EQ(report()["error_type"], "int");
    EXPECT_EQ(report()["error_message"], "");
}

TEST_F(ErrorContextTest, GoesOnUnchangedAndIsReportedOnce) {
    const std::exception *thrown = nullptr;
    try {
        capture_error_context(session_, [&] {
            const ErrorContext inner(session_);
            try {
                throws_deep(0);
            } catch (const std::exception &error) {
                thrown = &error;
                throw;
            }
        });
    } catch (const std::exception &error) {
        EXPECT_EQ(&error, thrown) << "the same object";
    }
    EXPECT_EQ(list_records(errors_dir(session_), "_error.json").size(), 1U);
}

TEST_F(ErrorContextTest, AScopeReportsWhatLeavesIt) {
    const auto leaves = [&] {
        const ErrorContext context(session_);
        try {
            throw std::runtime_error("caught inside");
        } catch (const std::runtime_error &) {
        }
        throws_deep(0);
    };
    EXPECT_THROW(leaves(), std::out_of_range);
    EXPECT_EQ(report()["error_type"], "std::out_of_range");
    EXPECT_EQ(report()["stack_trace_of"], "throw");
}

TEST_F(ErrorContextTest, NothingIsWrittenWhenNothingLeavesOrRecordingIsRefused) {
    EXPECT_EQ(capture_error_context(session_, [] { return 5; }), 5);
    {
        const ErrorContext context(session_);
        try {
            throws_deep(0);
        } catch (const std::out_of_range &) {
        }
    }
    setenv("PLANLOOP_NO_RECORDING", "1", 1);
    capture<std::out_of_range>([] { throws_deep(0); });
    unsetenv("PLANLOOP_NO_RECORDING");
    EXPECT_NE(access(errors_dir(session_).c_str(), F_OK), 0);
}

TEST_F(ErrorContextTest, NamesTheLocksThatWereHeldAndAwaited) {
    const std::string path = folder_ / "lock";
    int ready[2];
    ASSERT_EQ(pipe(ready), 0);
    const pid_t holder = fork();
    if (holder == 0) {
        FileLock lock(path);
        lock.lock();
        if (write(ready[1], "x", 1) != 1) _exit(1);
        pause();
    }
    char byte = 0;
    ASSERT_EQ(read(ready[0], &byte, 1), 1);
    capture<std::runtime_error>([&] {
        traced<std::mutex> queue{LockLabel{"queue"}};
        const std::lock_guard held(queue);
        FileLock lock(path);
        if (!lock.try_lock_for(std::chrono::milliseconds(20))) throw std::runtime_error("busy");
    });
    kill(holder, SIGKILL);
    waitpid(holder, nullptr, 0);
    const Json json = report();
    ASSERT_EQ(json["locks_held"].size(), 1U);
    EXPECT_EQ(json["locks_held"][0]["path"], "queue");
    EXPECT_EQ(json["locks_held"][0]["family"], "mutex");
    EXPECT_GE(json["locks_held"][0]["held_ms"].get<double>(), 20.0);
    ASSERT_EQ(json["locks_awaited"].size(), 1U);
    EXPECT_EQ(json["locks_awaited"][0]["path"], path);
    EXPECT_EQ(json["locks_awaited"][0]["error"], "ETIMEDOUT");
    EXPECT_GE(json["locks_awaited"][0]["waited_ms"].get<double>(), 20.0);
}

TEST_F(ErrorContextTest, KnowsTheSessionsLockAlsoWhenItWasTakenBefore) {
    SessionLock lock(session_, {.operation = "update"});
    const std::lock_guard guard(lock);
    capture<std::out_of_range>([] { throws_deep(0); });
    const Json json = report();
    ASSERT_EQ(json["locks_held"].size(), 1U);
    EXPECT_EQ(json["locks_held"][0]["path"], session_.directory + "/.lock");
}

TEST_F(ErrorContextTest, KeepsTheStateWithoutItsSecrets) {
    const auto with_state = [&](const std::string &state) {
        std::ofstream(session_.directory + "/state.json") << state;
        start_operation_trace("update");
        capture<std::out_of_range>([] { throws_deep(0); });
        return report(current_trace_id());
    };
    const Json json = with_state(R"({"version":3,"api_key":"x"})");
    EXPECT_EQ(*read_record(json["state_snapshot_path"].get<std::string>()), R"({"version":3,"api_key":"[REDACTED]"})");
    const Json broken = with_state("{\"version\":3,\"token\":\"abcdef\",\"na\xff");
    const auto snapshot = Json::parse(*read_record(broken["state_snapshot_path"].get<std::string>()), nullptr, false);
    EXPECT_TRUE(snapshot.is_object());
    EXPECT_EQ(snapshot["unreadable"].get<std::string>().find("abcdef"), std::string::npos);
    ::unlink((session_.directory + "/state.json").c_str());
    capture<std::out_of_range>([] { throws_deep(0); });
    EXPECT_TRUE(report(current_trace_id() + "_2")["state_snapshot_path"].is_null());
}

TEST_F(ErrorContextTest, ListsTheSpansThatWereOpen) {
    const OperationRecording recording(session_);
    capture<std::out_of_range>([] {
        { const Span done("done"); }
        const Span open("open");
        throws_deep(0);
    });
    const Json json = report();
    ASSERT_EQ(json["spans"].size(), 3U);
    EXPECT_EQ(json["spans"][1]["name"], "done");
    EXPECT_EQ(json["spans"][1]["open"], false);
    EXPECT_EQ(json["spans"][2]["name"], "open");
    EXPECT_EQ(json["spans"][2]["open"], true);
}

TEST_F(ErrorContextTest, ASpanNamesTheExceptionThatLeftIt) {
    {
        const OperationRecording recording(session_);
        capture<std::out_of_range>([] {
            const Span span("failing");
            throws_deep(0);
        });
    }
    const Json trace = Json::parse(*read_record(traces_dir(session_) + '/' + trace_id_ + ".json"));
    EXPECT_EQ(trace["spans"][1]["error"], "std::out_of_range: no such task");
    EXPECT_EQ(trace["status"], "ok") << "it was caught";
}

TEST_F(ErrorContextTest, AFullDiskLeavesNothingAndTheExceptionGoesOn) {
    std::ofstream(session_.directory + "/state.json") << R"({"version":1})";
    const pid_t child = fork();
    if (child == 0) {
        signal(SIGXFSZ, SIG_IGN);
        const rlimit little{64, 64};
        setrlimit(RLIMIT_FSIZE, &little);
        try {
            capture_error_context(session_, [] { throws_deep(0); });
        } catch (const std::out_of_range &) {
            _exit(0);
        }
        _exit(1);
    }
    int status = 0;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(files().empty());
}

TEST_F(ErrorContextTest, ACancelledThreadUnwindsWithoutAReport) {
    pthread_t thread{};
    struct Shared {
        const Session &session;
        bool unwound = false;
    } shared{session_};
    pthread_create(
        &thread, nullptr,
        [](void *argument) -> void * {
            auto &with = *static_cast<Shared *>(argument);
            struct Mark {
                bool &set;
                ~Mark() { set = true; }
            } const mark{with.unwound};
            capture_error_context(with.session, [] {
                for (;;) pause();
            });
            return nullptr;
        },
        &shared);
    pthread_cancel(thread);
    pthread_join(thread, nullptr);
    EXPECT_TRUE(shared.unwound);
    EXPECT_TRUE(files().empty());
}

}  // namespace
}  // namespace planloop
