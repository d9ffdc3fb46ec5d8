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
