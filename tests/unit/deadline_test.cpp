#include "lockcore/deadline.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>

namespace planloop {
namespace {

using namespace std::chrono_literals;
using System = std::chrono::system_clock;
using Hours = std::chrono::duration<double, std::ratio<3600>>;

TEST(Deadline, IsNeverEarlyAndNeverOverflows) {
    const auto nearly = [](SteadyClock::time_point deadline, SteadyClock::duration wait) {
        const auto ahead = deadline - SteadyClock::now();
        return ahead <= wait && ahead > wait - 1min;
    };
    EXPECT_TRUE(nearly(deadline_after(1h), 1h));
    EXPECT_TRUE(nearly(deadline_after(Hours(0.5)), 30min));
    EXPECT_TRUE(nearly(deadline_after(90 * 8766h), 90 * 8766h));
    EXPECT_TRUE(nearly(deadline_at(System::now() + 1h), 1h));
    EXPECT_TRUE(nearly(deadline_at(SteadyClock::now() + 1h), 1h));
    const auto exact = SteadyClock::now() + 17ns;
    EXPECT_EQ(deadline_at(exact), exact);
    using Picoseconds = std::chrono::duration<std::int64_t, std::pico>;
    const auto before = SteadyClock::now();
    EXPECT_GE(deadline_after(Picoseconds(1)), before + 1ns);

    EXPECT_EQ(deadline_after(std::chrono::hours::max()), kNoDeadline);
    EXPECT_EQ(deadline_after(std::chrono::nanoseconds::max()), kNoDeadline);
    EXPECT_EQ(deadline_after(Hours(std::numeric_limits<double>::infinity())), kNoDeadline);
    EXPECT_EQ(deadline_at(SteadyClock::time_point::max()), kNoDeadline);
    EXPECT_EQ(deadline_at(System::time_point::max()), kNoDeadline);
    EXPECT_EQ(deadline_at(std::chrono::time_point<System, std::chrono::hours>::max()), kNoDeadline);
}

TEST(Deadline, OfWhatIsOverIsNow) {
    const SteadyClock::time_point deadlines[] = {
        deadline_after(0s),
        deadline_after(-1s),
        deadline_after(std::chrono::hours::min()),
        deadline_after(Hours(std::numeric_limits<double>::quiet_NaN())),
        deadline_at(SteadyClock::time_point::min()),
        deadline_at(System::time_point::min()),
        deadline_at(std::chrono::time_point<System, std::chrono::hours>::min()),
    };
    for (const SteadyClock::time_point deadline : deadlines) {
        EXPECT_LE(deadline, SteadyClock::now());
        EXPECT_GT(deadline, SteadyClock::now() - 1min);
    }
}

}  // namespace
}  // namespace planloop
