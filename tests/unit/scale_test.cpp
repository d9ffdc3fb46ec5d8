// More processes and threads than anybody has, from sources that make their events as they are asked for.
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <cstdint>
#include <string>

#include "analysis/report.h"

namespace planloop::analysis {
namespace {

// Threads that one after another lock the file and unlock it; each ends its process if it has one of its own.
class OneAfterAnother : public EventSource {
  public:
    OneAfterAnother(std::uint32_t threads, bool processes) : threads_(threads), processes_(processes) {
        file_.device = 1;
        file_.inode = 1;
        file_.path = "/tmp/lock";
        info_.name = info_.operation = "x";
    }

    bool next(Event &event) override {
        const std::uint32_t steps = processes_ ? 5 : 3;
        const auto thread = static_cast<std::uint32_t>(step_ / steps);
        if (thread == threads_) return false;
        static constexpr EventKind kKinds[] = {EventKind::process_started, EventKind::lock_requested,
                                               EventKind::lock_acquired, EventKind::lock_released,
                                               EventKind::process_exiting};
        event = {};
        event.kind = kKinds[step_ % steps + (processes_ ? 0 : 1)];
        event.t_ns = 1'800'000'000'000'000'000 + static_cast<std::int64_t>(step_);
        event.family = wire::Family::flock;
        event.mode = wire::Mode::exclusive;
        event.flags = wire::kBlocking;
        event.thread = thread + 1;
        event.process = processes_ ? thread + 1 : 1;
        event.pid = processes_ ? static_cast<std::int32_t>(100 + thread) : 100;
        event.tid = static_cast<std::int32_t>(100 + thread);
        event.fd = processes_ ? 3 : static_cast<std::int32_t>(3 + thread % 8);
        event.file = 1;
        event.description = processes_ ? thread + 1 : 1 + thread % 8;
        event.entry = thread + 1;
        ++step_;
        return true;
    }
    const ProcessInfo &process(std::uint32_t id) const override {
        info_.pid = processes_ ? static_cast<std::int32_t>(99 + id) : 100;
        return info_;
    }
    const FileInfo &file(std::uint32_t /*id*/) const override { return file_; }
    SourceNotes notes() const override { return {}; }

  private:
    std::uint32_t threads_;
    bool processes_;
    std::uint64_t step_ = 0;
    mutable ProcessInfo info_;
    FileInfo file_;
};

std::int64_t most_memory_kb() {
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
    return usage.ru_maxrss;
}

TEST(Scale, ProcessesThatEndedCostNearlyNothing) {
    constexpr std::uint32_t kProcesses = 100'000;
    OneAfterAnother source(kProcesses, true);
    const std::int64_t before_kb = most_memory_kb();
    const Report report = analyse(source, {}, {});
    EXPECT_EQ(report.processes, kProcesses);
    EXPECT_EQ(report.threads, kProcesses);
    ASSERT_EQ(report.locks.size(), 1U);
    EXPECT_EQ(report.locks[0].acquisitions, kProcesses);
    EXPECT_TRUE(report.held.empty());
    RecordProperty("kb", std::to_string(most_memory_kb() - before_kb));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LT(most_memory_kb() - before_kb, 128 * 1024);
#endif
}

TEST(Scale, AMillionThreadsOfOneProcessAreCounted) {
    constexpr std::uint32_t kThreads = 1'000'000;
    OneAfterAnother source(kThreads, false);
    const Report report = analyse(source, {}, {});
    EXPECT_EQ(report.threads, kThreads);
    ASSERT_EQ(report.locks.size(), 1U);
    EXPECT_EQ(report.locks[0].acquisitions, kThreads);
}

}  // namespace
}  // namespace planloop::analysis
