#include "lockcore/trace_id.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

namespace planloop {
namespace {

TEST(TraceId, HasTheTimeInItAndHexBehind) {
    EXPECT_EQ(make_trace_id(1'795'334'400'000'000'000, 0xa3f5c9), "tr_20261122080000_00a3f5c9");
    EXPECT_TRUE(valid_trace_id(make_trace_id()));
}

TEST(TraceId, DiffersEachTime) {
    std::set<std::string> ids;
    for (int i = 0; i < 100; ++i) ids.insert(make_trace_id());
    EXPECT_EQ(ids.size(), 100U);
}

TEST(TraceId, AcceptsOnlyItsOwnForm) {
    const struct {
        const char *id;
        bool valid;
    } cases[] = {
        {"tr_20261122080000_a3f5c9", true},
        {"tr_20261122080000_a3f5c9ffff", true},
        {"tr_20261122080000_a3f5c", false},  // too few digits
        {"tr_20261122080000_a3f5cg", false},
        {"tr_20261122080000_A3F5C9", false},
        {"tr_2026112208000x_a3f5c9", false},
        {"tr_20261122080000a3f5c9", false},
        {"tx_20261122080000_a3f5c9", false},
        {"tr_20261122080000_a3f5c9/../../x", false},
        {"", false},
    };
    for (const auto &item : cases) EXPECT_EQ(valid_trace_id(item.id), item.valid) << item.id;
    EXPECT_FALSE(valid_trace_id("tr_20261122080000_" + std::string(1000, 'a')));
}

TEST(TraceId, IsInheritedOnlyWhenValid) {
    setenv(kTraceIdVariable, "tr_20261122080000_a3f5c9", 1);
    EXPECT_EQ(inherited_trace_id(), "tr_20261122080000_a3f5c9");
    setenv(kTraceIdVariable, "../../etc/passwd", 1);
    EXPECT_FALSE(inherited_trace_id());
    unsetenv(kTraceIdVariable);
    EXPECT_FALSE(inherited_trace_id());
}

}  // namespace
}  // namespace planloop
