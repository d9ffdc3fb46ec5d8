#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <initializer_list>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "analysis/source/event_source.h"
#include "tests/support/event_source_fixture.h"
#include "tests/support/spool_fixture.h"

namespace planloop::analysis {
namespace {

using test::SpoolFixture;

using EventSourceLogTest = EventSourceTest;

TEST_F(EventSourceLogTest, ReadsWhatInstrumentedProgramsLogged) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 100, .end = 300});
    spool.write(spool_path());
    write_log(
        line("lock_requested", 50, "e1", "lockcore") + line("lock_acquired", 200, "e1", "lockcore") +
        R"({"timestamp":"2027-01-15T08:00:00Z","level":"INFO","message":"says \"lock_acquired\"","event":"other"})"
        "\n" +
        line("lock_released", 400, "e1", "lockcore"));
    const auto source = open();
    const auto events = read(*source);
    ASSERT_EQ(outline(events),
              (Outline{"requested 50", "requested 100", "acquired 200", "acquired 300", "released 400"}));
    const Event &acquired = events[2];
    EXPECT_EQ(acquired.entry, events[0].entry);
    EXPECT_EQ(acquired.duration_ns, 1'234);
    EXPECT_EQ(acquired.family, wire::Family::named_mutex);
    EXPECT_EQ(acquired.mode, wire::Mode::exclusive);
    EXPECT_EQ(acquired.pid, 500);
    EXPECT_EQ(acquired.tid, 501);
    EXPECT_EQ(source->file(acquired.file).lock_id, "named_mutex:queue");
    EXPECT_EQ(source->process(acquired.process).name, "agent");
    EXPECT_EQ(source->process(acquired.process).operation, "update");
    EXPECT_NE(acquired.process, events[1].process);
    EXPECT_TRUE(source->notes().messages.empty());
}

TEST_F(EventSourceLogTest, KnowsFilesInTheLogByDeviceAndInode) {
    write_log(R"({"timestamp":"2027-01-15T08:00:00Z","event":"lock_failed","trace_id":"t","operation":"o",)"
              R"("lock_entry_id":"e","pid":1,"tid":1,"errno":11,"wait_ms":2.5,)"
              R"("lock":{"id":"posix:fe:01:1234","family":"posix","path":"/tmp/a","start":5,"len":6},"mode":"shared"})"
              "\n");
    const auto source = open();
    const auto events = read(*source);
    ASSERT_EQ(events.size(), 1U);
    EXPECT_EQ(events[0].error, 11);
    EXPECT_EQ(events[0].duration_ns, 2'500'000);
    EXPECT_EQ(events[0].family, wire::Family::posix);
    EXPECT_EQ(events[0].mode, wire::Mode::shared);
    EXPECT_EQ(events[0].start, 5U);
    EXPECT_EQ(events[0].len, 6U);
    EXPECT_EQ(source->file(events[0].file).device, 0xfe01U);
    EXPECT_EQ(source->file(events[0].file).inode, 1234U);
    EXPECT_EQ(source->file(events[0].file).path, "/tmp/a");
    EXPECT_TRUE(source->file(events[0].file).lock_id.empty());
}

TEST_F(EventSourceLogTest, TakesExportedLinesOnlyWhenTheirSpoolIsGone) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 100, .end = 300});
    spool.write(spool_path("here.spool"));
    write_log(line("lock_acquired", 300, "e1", "preload", "here.spool") +
              line("lock_acquired", 400, "e2", "preload", "gone.spool") + line("lock_acquired", 500, "e3", "preload") +
              line("lock_acquired", 600, "e4", "lockcore", "here.spool") +
              line("lock_acquired", 700, "e5", "lockcore"));
    EXPECT_EQ(outline(read(*open())), (Outline{"requested 100", "acquired 300", "acquired 400", "acquired 700"}));
    std::remove(spool_path("here.spool").c_str());
    EXPECT_EQ(outline(read(*open())),
              (Outline{"acquired 300", "acquired 400", "acquired 500", "acquired 600", "acquired 700"}));
}

TEST_F(EventSourceLogTest, ReadsThePythonPlanloopsLines) {
    write_log(R"({"timestamp": "2027-01-15T08:00:00.000005", "event": "lock_requested", "trace_id": "tr_abc", )"
              R"("operation": "update", "lock_entry_id": "q1"})"
              "\n"
              R"({"timestamp": "2027-01-15T08:00:02.344005+00:00", "event": "lock_acquired", "trace_id": "tr_abc", )"
              R"("operation": "update", "lock_entry_id": "q1", "wait_ms": 2344})"
              "\n");
    const auto source = open();
    const auto events = read(*source);
    ASSERT_EQ(outline(events), (Outline{"requested 5000", "acquired 2344005000"}));
    EXPECT_EQ(events[1].duration_ns, 2'344'000'000);
    EXPECT_EQ(events[0].thread, events[1].thread);
    EXPECT_EQ(source->file(events[0].file).lock_id, "session");
    EXPECT_EQ(source->process(events[0].process).trace_id, "tr_abc");
}

TEST_F(EventSourceLogTest, CountsLogLinesThatItCannotUse) {
    write_log("garbage\n\n" + line("lock_acquired", 1, "e1", "lockcore") + "{\"event\":\"lock_acquired\" broken}\n" +
              "{\"event\":\"lock_acquired\"}\n" + "{\"a\":\"" + std::string(2'000'000, 'x') + "\"}\n" +
              line("lock_acquired", 2, "e2", "lockcore") + "{\"timestamp\":\"2027-01-15T0");
    const auto source = open();
    EXPECT_EQ(outline(read(*source)), (Outline{"acquired 1", "acquired 2"}));
    const auto messages = source->notes().messages;
    ASSERT_EQ(messages.size(), 3U);
    EXPECT_NE(messages[0].find(": 3 lines"), std::string::npos) << messages[0];
    EXPECT_NE(messages[1].find("cut off"), std::string::npos) << messages[1];
    EXPECT_NE(messages[2].find("too long"), std::string::npos) << messages[2];
}

TEST_F(EventSourceLogTest, TakesALastLineWithoutNewline) {
    std::string last = line("lock_acquired", 7, "e", "lockcore");
    last.pop_back();
    write_log(last);
    EXPECT_EQ(outline(read(*open())), (Outline{"acquired 7"}));
}

// The clock is set back by an hour while two programs write, and each of them is the one to notice.
TEST_F(EventSourceLogTest, LogLinesKeepTheirOrderWhenTheClockIsSetBack) {
    constexpr std::int64_t kHour = 3'600'000'000'000;
    write_log(line("lock_requested", kHour + 1, "1", "lockcore", "", 500) +
              line("lock_acquired", kHour + 2, "1", "lockcore", "", 500) +
              line("lock_requested", kHour + 3, "2", "lockcore", "", 600) +
              line("lock_released", 4, "1", "lockcore", "", 500) + line("lock_acquired", 5, "2", "lockcore", "", 600) +
              line("lock_requested", 6, "3", "lockcore", "", 700) +
              line("lock_released", 10, "2", "lockcore", "", 600) +
              line("lock_acquired", 12, "3", "lockcore", "", 700));
    const auto source = open();
    std::vector<std::string> expected;
    for (const auto &[what, after_ns] : std::initializer_list<std::pair<std::string, std::int64_t>>{{"requested ", 1},
                                                                                                    {"acquired ", 2},
                                                                                                    {"requested ", 3},
                                                                                                    {"released ", 4},
                                                                                                    {"acquired ", 5},
                                                                                                    {"requested ", 6},
                                                                                                    {"released ", 10},
                                                                                                    {"acquired ", 12}})
        expected.push_back(what + std::to_string(kHour + after_ns));
    EXPECT_EQ(outline(read(*source)), expected);
    EXPECT_EQ(source->notes().messages.size(), 1U);
}

TEST_F(EventSourceLogTest, PutsLogLinesOfManyWritersInOrder) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    std::vector<std::int64_t> times(2'000);
    std::uniform_int_distribution<std::int64_t> delay(0, 300'000);
    for (std::size_t i = 0; i < times.size(); ++i) times[i] = static_cast<std::int64_t>(i) * 1'000 + delay(random);
    std::string text;
    for (const std::int64_t time : times) text += line("lock_acquired", time, std::to_string(time), "lockcore");
    write_log(text);
    std::sort(times.begin(), times.end());
    const auto events = read(*open());
    ASSERT_EQ(events.size(), times.size());
    for (std::size_t i = 0; i < times.size(); ++i) ASSERT_EQ(events[i].t_ns - kEpoch, times[i]);
}

}  // namespace
}  // namespace planloop::analysis
