#include "lockcore/operation_trace.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <thread>

#include "lockcore/trace_id.h"
#include "tests/support/child_process.h"

namespace planloop {
namespace {

using testing::Child;
using testing::Line;

constexpr char kForeign[] = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

TEST(OperationTrace, IsWhatTheThreadDoesFromThenOn) {
    const std::string id = start_operation_trace("update");
    EXPECT_TRUE(valid_trace_id(id));
    EXPECT_EQ(current_trace().trace_id, id);
    EXPECT_EQ(current_trace().operation, "update");
    std::thread([&] {
        EXPECT_EQ(current_trace().operation, "");
        EXPECT_NE(current_trace_id(), id);
        const TraceScope scope({id, "handed over"});
        EXPECT_EQ(current_trace_id(), id);
    }).join();
    EXPECT_NE(start_operation_trace("status"), id) << "another operation is another trace";
}

TEST(OperationTrace, ChildrenOfTheMainThreadInheritItWhateverStartsThem) {
    Child child([](Line &) {
        ::unsetenv("PLANLOOP_TRACE_ID");
        ::unsetenv("TRACEPARENT");
        const std::string id = start_operation_trace("update");
        const std::string command =
            "test \"$PLANLOOP_TRACE_ID\" = " + id + " && case $TRACEPARENT in 00-*-01) ;; *) exit 1; esac";
        return ::system(command.c_str()) == 0 ? 0 : 1;
    });
    EXPECT_EQ(child.status(), 0);
}

TEST(OperationTrace, ComesFromTheEnvironmentWhenThatHasOne) {
    struct Case {
        const char *ours;
        const char *w3c;
        std::string wanted;  // last part of the id
    };
    const Case cases[] = {
        {"tr_20261122080000_a3f5c9", kForeign, "tr_20261122080000_a3f5c9"},
        {"no trace id", kForeign, "_4bf92f3577b34da6a3ce929d0e0e4736"},
        {nullptr, kForeign, "_4bf92f3577b34da6a3ce929d0e0e4736"},
        {nullptr, "00-20261122080000a3f5c9000000000006-00f067aa0ba902b7-01", "tr_20261122080000_a3f5c9"},
    };
    for (const Case &one : cases) {
        Child child([&](Line &) {
            one.ours != nullptr ? ::setenv("PLANLOOP_TRACE_ID", one.ours, 1) : ::unsetenv("PLANLOOP_TRACE_ID");
            one.w3c != nullptr ? ::setenv("TRACEPARENT", one.w3c, 1) : ::unsetenv("TRACEPARENT");
            char *arguments[] = {const_cast<char *>("operation_trace_test"),
                                 const_cast<char *>("--gtest_also_run_disabled_tests"),
                                 const_cast<char *>("--gtest_filter=OperationTrace.DISABLED_PrintsItsTrace"), nullptr};
            ::setenv("WANTED_TRACE", one.wanted.c_str(), 1);
            ::execv("/proc/self/exe", arguments);
            return 98;
        });
        EXPECT_EQ(child.status(), 0) << one.wanted;
    }
}

// Run by the test above, in a program of its own: the environment is read once.
TEST(OperationTrace, DISABLED_PrintsItsTrace) {
    const std::string wanted = ::getenv("WANTED_TRACE");  // NOLINT(concurrency-mt-unsafe)
    const std::string id = start_operation_trace("a");
    EXPECT_EQ(id.substr(id.size() - wanted.size()), wanted);
    EXPECT_EQ(start_operation_trace("b"), id) << "all that the process does belongs to what it was started for";
}

TEST(OperationTrace, GoesThroughTraceparentAndBackUnchanged) {
    const char *ids[] = {"tr_20261122080000_a3f5c9", "tr_20261122080000_a3f5c912", "tr_20260101000000_000000",
                         "tr_20261122080000_0123456789abcdef", "tr_20261122080000_4bf92f3577b34da6a3ce929d0e0e4736"};
    for (const std::string id : ids) {
        const std::string value = to_traceparent(id);
        EXPECT_EQ(value.size(), 55u);
        const auto back = from_traceparent(value);
        ASSERT_TRUE(back) << value;
        const std::size_t hex = id.rfind('_');
        EXPECT_EQ(back->substr(back->rfind('_')), id.substr(hex));
        if (id.size() - hex <= 17) {
            EXPECT_EQ(*back, id);
        }
        EXPECT_NE(to_traceparent(id), value) << "another span";
    }
    const auto foreign = from_traceparent(kForeign);
    ASSERT_TRUE(foreign);
    EXPECT_TRUE(valid_trace_id(*foreign));
    EXPECT_EQ(to_traceparent(*foreign).substr(0, 35), std::string(kForeign).substr(0, 35));
}

TEST(OperationTrace, RefusesWhatIsNoTraceparent) {
    const std::string good = kForeign;
    ASSERT_TRUE(from_traceparent(good));
    EXPECT_TRUE(from_traceparent("01" + good.substr(2) + "-more")) << "a later version may say more";
    const std::string bad[] = {"",
                               "00",
                               good.substr(1),
                               good + "0",
                               good + "-more",
                               "ff" + good.substr(2),
                               "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
                               "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
                               "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
                               "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"};
    for (const std::string &value : bad) EXPECT_FALSE(from_traceparent(value)) << value;
    EXPECT_TRUE(from_traceparent(to_traceparent("no trace id"))) << "something valid is sent all the same";
}

}  // namespace
}  // namespace planloop
