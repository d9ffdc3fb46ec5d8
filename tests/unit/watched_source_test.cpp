#include "analysis/source/watched_source.h"

#include <gtest/gtest.h>

#include <memory>
#include <utility>
#include <vector>

namespace planloop::analysis {
namespace {

using namespace std::chrono_literals;

class Counted : public EventSource {
  public:
    explicit Counted(std::uint64_t events) : events_(events) {}
    bool next(Event & /*event*/) override { return at_ < events_ && ++at_ > 0; }
    const ProcessInfo &process(std::uint32_t /*id*/) const override { return process_; }
    const FileInfo &file(std::uint32_t /*id*/) const override { return file_; }
    SourceNotes notes() const override { return {}; }
    double share_read() const override { return static_cast<double>(at_) / static_cast<double>(events_); }

  private:
    std::uint64_t events_, at_ = 0;
    ProcessInfo process_;
    FileInfo file_;
};

// What is told of 640 * 1024 events when the clock goes on by so much at each look.
std::vector<double> told(std::chrono::milliseconds step) {
    std::vector<double> shares;
    std::chrono::steady_clock::time_point now{};
    WatchedSource source(
        std::make_unique<Counted>(10 * WatchedSource::kStride),
        [&](double share, std::uint64_t /*events*/) { shares.push_back(share); }, [&] { return now += step; });
    std::uint64_t events = 0;
    for (Event event; source.next(event);) ++events;
    EXPECT_EQ(events, 10 * WatchedSource::kStride);
    return shares;
}

TEST(WatchedSource, SaysNothingOfWhatIsSoonDone) {
    EXPECT_TRUE(told(90ms).empty());
}

TEST(WatchedSource, TellsAfterASecondHowFarItIs) {
    const std::vector<double> shares = told(300ms);
    ASSERT_EQ(shares.size(), 7U);
    EXPECT_NEAR(shares.front(), 0.4, 0.01);
    EXPECT_NEAR(shares.back(), 1.0, 0.01);
}

TEST(WatchedSource, TellsNoOftenerThanTenTimesASecond) {
    EXPECT_EQ(told(1000ms).size(), 10U);
    EXPECT_EQ(told(200ms).size(), 6U);
}

}  // namespace
}  // namespace planloop::analysis
