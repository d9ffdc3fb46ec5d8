#include "analysis/source/event_source.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <random>
#include <set>

#include "lockcore/clock.h"
#include "tests/support/event_source_fixture.h"
#include "tests/support/spool_fixture.h"

namespace planloop::analysis {
namespace {

using test::kEpochNs;
using test::SpoolFixture;
using wire::RecordKind;
using wire::State;

wire::ProcessBody body_of(std::int32_t pid, std::uint64_t start_time) {
    wire::ProcessBody body{};
    body.pid = pid;
    body.start_time = start_time;
    return body;
}

TEST_F(EventSourceTest, TakesALockCallApart) {
    SpoolFixture spool;
    auto &chunk = spool.chunk({.process = 1, .stream = 2, .pid = 100, .tid = 101});
    chunk.process("/usr/bin/flock /tmp/a true", {}, 5).file(3, "/tmp/a", 42, 6);
    chunk.acquire({.begin = 10, .end = 25, .fd = 4, .file = 3, .description = 7, .a = 1, .b = 2, .caller = 9});
    chunk.acquire({.begin = 30, .end = 31, .error = EAGAIN});
    chunk.release({.begin = 40, .fd = 4, .file = 3});
    chunk.release({.begin = 50, .error = EBADF});
    chunk.acquire({.state = State::abandoned, .begin = 60, .end = 66});
    chunk.record({.kind = RecordKind::release, .state = State::annulled, .begin = 70});
    chunk.pending({.begin = 80});
    const auto events = read_spool(spool);
    ASSERT_EQ(outline(events), (Outline{"started 5", "requested 10", "acquired 25", "requested 30", "failed 31",
                                        "released 40", "released 50", "requested 60", "failed 66", "requested 80"}));
    const Event &acquired = events[2];
    EXPECT_EQ(acquired.entry, events[1].entry);
    EXPECT_NE(acquired.entry, events[3].entry);
    EXPECT_EQ(acquired.duration_ns, 15);
    EXPECT_EQ(acquired.process, 1U);
    EXPECT_EQ(acquired.thread, 2U);
    EXPECT_EQ(acquired.pid, 100);
    EXPECT_EQ(acquired.tid, 101);
    EXPECT_EQ(acquired.fd, 4);
    EXPECT_EQ(acquired.file, 3U);
    EXPECT_EQ(acquired.description, 7U);
    EXPECT_EQ(acquired.start, 1U);
    EXPECT_EQ(acquired.len, 2U);
    EXPECT_EQ(acquired.caller, 9U);
    EXPECT_EQ(acquired.mode, wire::Mode::exclusive);
    EXPECT_EQ(acquired.flags, wire::kBlocking);
    EXPECT_EQ(events[4].error, EAGAIN);
    EXPECT_EQ(events[6].error, EBADF);
    EXPECT_EQ(events[8].error, ECANCELED);
}

TEST_F(EventSourceTest, KnowsProcessesAndFiles) {
    SpoolFixture spool;
    wire::ProcessBody body{};
    body.pid = 100;
    body.parent_pid = 99;
    body.start_time = 12'345;
    body.parent_process = 4;
    body.uid = 1'000;
    body.replaced_by_exec = 1;
    spool.chunk({.process = 5, .stream = 1})
        .process("/bin/sh -c 'x y'", body, 1, "tr_20270115080000_abcdef", "/usr/bin/dash")
        .file(3, "/tmp/größe", 42, 2, 0xfe01, 77);
    spool.chunk({.process = 6, .stream = 2, .pid = 200}).process("agent", {}, 3, "", "", "update");
    spool.write(spool_path());
    const auto source = open();
    read(*source);
    const ProcessInfo &shell = source->process(5);
    EXPECT_EQ(shell.pid, 100);
    EXPECT_EQ(shell.parent_pid, 99);
    EXPECT_EQ(shell.start_time, 12'345U);
    EXPECT_EQ(shell.parent_process, 4U);
    EXPECT_EQ(shell.uid, 1'000U);
    EXPECT_TRUE(shell.replaced_by_exec);
    EXPECT_EQ(shell.command_line, "/bin/sh -c 'x y'");
    EXPECT_EQ(shell.executable, "/usr/bin/dash");
    EXPECT_EQ(shell.working_folder, "/");
    EXPECT_EQ(shell.trace_id, "tr_20270115080000_abcdef");
    EXPECT_EQ(shell.name, "sh");
    EXPECT_EQ(shell.operation, "sh") << "who inherits no operation does its own name";
    EXPECT_EQ(source->process(6).operation, "update");
    EXPECT_EQ(source->file(3).path, "/tmp/größe");
    EXPECT_EQ(source->file(3).inode, 42U);
    EXPECT_EQ(source->file(3).device, 0xfe01U);
    EXPECT_EQ(source->file(3).generation, 77U);
    EXPECT_EQ(source->process(0).pid, 0);
    EXPECT_EQ(source->process(4'000'000'000).pid, 0);
    EXPECT_TRUE(source->file(0).path.empty());
}

TEST_F(EventSourceTest, NamesAProcessAfterItsFirstArgument) {
    const struct {
        const char *command_line, *executable, *name;
    } cases[] = {
        {"/usr/bin/python3 -m x /a/b", "/usr/bin/python3.11", "python3"},
        {"flock", "", "flock"},
        {"-bash", "/bin/bash", "-bash"},
        {"/home/x/My Prog/run --fast", "/home/x/My Prog/run", "run"},
        {"", "/usr/bin/true", "true"},
        {"", "", ""},
        {"busybox sh", "/bin/busybox", "busybox"},
    };
    std::uint32_t number = 1;
    SpoolFixture spool;
    for (const auto &item : cases) {
        spool.chunk({.process = number, .stream = number}).process(item.command_line, {}, number, "", item.executable);
        ++number;
    }
    spool.write(spool_path());
    const auto source = open();
    read(*source);
    number = 1;
    for (const auto &item : cases) EXPECT_EQ(source->process(number++).name, item.name) << item.command_line;
}

TEST_F(EventSourceTest, TellsOfDescriptorsAndProcesses) {
    SpoolFixture spool;
    auto &chunk = spool.chunk({.process = 1, .stream = 1, .pid = 100});
    chunk.process("a", body_of(100, 50), 1);
    chunk.record({.kind = RecordKind::close,
                  .begin = 10,
                  .fd = 3,
                  .description = 8,
                  .a = static_cast<std::uint64_t>(wire::CloseCause::replaced)});
    chunk.record({.kind = RecordKind::duplicate, .begin = 20, .fd = 3, .a = 9});
    chunk.record({.kind = RecordKind::fork, .begin = 30, .a = 101});
    chunk.record({.kind = RecordKind::sharer, .begin = 40, .fd = 3, .a = 102, .b = 7});
    chunk.record({.kind = RecordKind::wait_child, .begin = 50, .end = 60, .a = 101, .b = 101});
    chunk.record({.kind = RecordKind::exec, .state = State::pending, .begin = 70});
    chunk.record({.kind = RecordKind::exec, .state = State::annulled, .begin = 75});
    chunk.record({.kind = RecordKind::exit, .begin = 80, .a = 1, .b = 3});
    spool.chunk({.process = 2, .stream = 2, .pid = 100}).process("b", body_of(100, 90), 85);
    auto &supervisor = spool.chunk({.process = 0, .stream = 3, .pid = 1, .tid = 1});
    supervisor.record({.kind = RecordKind::ended, .begin = 90, .end = 50, .a = 100, .b = 9});
    supervisor.record({.kind = RecordKind::ended, .begin = 91, .end = 90, .a = 100, .b = ~std::uint64_t{0}});
    supervisor.record({.kind = RecordKind::ended, .begin = 92, .end = 0, .a = 100});
    supervisor.record({.kind = RecordKind::ended, .begin = 93, .end = 4, .a = 777});
    supervisor.with_payload({.kind = RecordKind::not_traced, .begin = 94, .a = 300, .b = 1},
                            std::string("/usr/bin/su\0", 12));
    spool.write(spool_path());
    const auto source = open();
    const auto events = read(*source);
    ASSERT_EQ(outline(events), (Outline{"started 1", "closed 10", "duplicate 20", "forked 30", "sharer 40", "wait 50",
                                        "waited 60", "exec 70", "exiting 80", "started 85", "ended 90", "ended 91",
                                        "ended 92", "ended 93", "not_traced 94"}));
    EXPECT_EQ(events[1].other, 1);
    EXPECT_EQ(events[1].description, 8U);
    EXPECT_EQ(events[2].other, 9);
    EXPECT_EQ(events[3].other, 101);
    EXPECT_EQ(events[4].other, 102);
    EXPECT_EQ(events[4].start, 7U);
    EXPECT_EQ(events[5].other, 101);
    EXPECT_EQ(events[6].entry, events[5].entry);
    EXPECT_EQ(events[8].other, 3);
    EXPECT_EQ(events[10].process, 1U) << "the pid was used again; the start time tells whose end it is";
    EXPECT_EQ(events[10].pid, 100);
    EXPECT_EQ(events[10].other, 9);
    EXPECT_EQ(events[10].start, 50U);
    EXPECT_EQ(events[11].process, 2U);
    EXPECT_EQ(events[11].other, -1);
    EXPECT_EQ(events[12].process, 2U);
    EXPECT_EQ(events[13].process, 0U);
    EXPECT_EQ(events[13].pid, 777);
    EXPECT_EQ(events[14].pid, 300);
    EXPECT_EQ(events[14].other, 1);
    EXPECT_EQ(source->file(events[14].file).path, "/usr/bin/su");
}

TEST_F(EventSourceTest, MergesThreadsByTime) {
    SpoolFixture spool;
    auto &first = spool.chunk({.stream = 1, .tid = 1});
    auto &second = spool.chunk({.stream = 2, .tid = 2, .claimed = {15, 15, kEpochNs + 15}});
    first.acquire({.begin = 10, .end = 12});
    second.acquire({.begin = 11, .end = 30});  // stamped before its chunk was claimed
    first.release({.begin = 29});
    const auto events = read_spool(spool);
    EXPECT_EQ(outline(events), (Outline{"requested 10", "requested 11", "acquired 12", "released 29", "acquired 30"}));
    EXPECT_EQ(events[1].tid, 2);
}

TEST_F(EventSourceTest, LetsACallEndAfterThoseInsideIt) {
    SpoolFixture spool;
    auto &chunk = spool.chunk();
    chunk.acquire({.begin = 10, .end = 100, .fd = 1});  // a signal handler runs while it waits
    chunk.acquire({.begin = 20, .end = 60, .fd = 2});
    chunk.acquire({.begin = 30, .end = 40, .fd = 3});
    chunk.release({.begin = 50, .fd = 3});
    chunk.pending({.begin = 70, .fd = 4});
    chunk.release({.begin = 100, .fd = 1});
    const auto events = read_spool(spool);
    EXPECT_EQ(outline(events), (Outline{"requested 10", "requested 20", "requested 30", "acquired 40", "released 50",
                                        "acquired 60", "requested 70", "acquired 100", "released 100"}));
    EXPECT_EQ(events[7].fd, 1);
    EXPECT_EQ(events[5].fd, 2);
}

TEST_F(EventSourceTest, PutsAReleaseBeforeTheAcquisitionThatItAllowed) {
    SpoolFixture spool;
    auto &taker = spool.chunk({.stream = 1});
    taker.acquire({.begin = 5, .end = 50});
    auto &giver = spool.chunk({.process = 2, .stream = 2});
    giver.release({.begin = 50});
    auto &child = spool.chunk({.process = 3, .stream = 3});
    child.process("child", {}, 50);
    auto &parent = spool.chunk({.process = 2, .stream = 4});
    parent.record({.kind = RecordKind::fork, .begin = 50, .a = 3});
    EXPECT_EQ(outline(read_spool(spool)),
              (Outline{"requested 5", "forked 50", "started 50", "released 50", "acquired 50"}));
}

TEST_F(EventSourceTest, NeverGoesBackInTime) {
    SpoolFixture spool;
    auto &chunk = spool.chunk();
    chunk.acquire({.begin = 100, .end = 50});
    chunk.acquire({.begin = 10, .end = 20});
    chunk.release({.begin = ~std::uint64_t{0}});
    chunk.acquire({.begin = 0, .end = 1});
    const auto events = read_spool(spool);
    ASSERT_EQ(events.size(), 7U);
    for (std::size_t i = 1; i < events.size(); ++i) EXPECT_LE(events[i - 1].t_ns, events[i].t_ns);
    for (const Event &event : events) EXPECT_GE(event.duration_ns, 0);
}

TEST_F(EventSourceTest, BringsTicksAndNanosecondsTogether) {
    SpoolFixture spool(wire::ClockKind::tsc, {1'000'000, 500, kEpochNs});
    auto &counter = spool.chunk(
        {.stream = 1, .clock = wire::ClockKind::tsc, .claimed = {1'000'000 + 3'000'000'000, 500 + 1'000'000'000, 0}});
    counter.acquire({.begin = 1'000'000 + 3'000, .end = 1'000'000 + 9'000});
    auto &plain = spool.chunk({.stream = 2, .clock = wire::ClockKind::monotonic, .claimed = {900, 900, 0}});
    plain.acquire({.begin = 500 + 2'000, .end = 500 + 2'500});
    const auto events = read_spool(spool);
    ASSERT_EQ(events.size(), 4U);
    const std::int64_t expected[] = {1'000, 2'000, 2'500, 3'000};
    for (std::size_t i = 0; i < 4; ++i) {
        EXPECT_NEAR(static_cast<double>(events[i].t_ns - kEpoch), static_cast<double>(expected[i]), 2) << i;
    }
    EXPECT_EQ(events[2].duration_ns, 500);
    EXPECT_NEAR(static_cast<double>(events[3].duration_ns), 2'000, 1);
}

// Random threads with calls inside calls, against sorting them all.
TEST_F(EventSourceTest, MergesAsSortingWould) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 60; ++round) {
        SpoolFixture spool;
        std::vector<std::pair<std::uint64_t, std::string>> expected;
        std::uint64_t clock = 1;
        const auto streams = static_cast<std::uint32_t>(1 + random() % 12);
        struct Open {
            test::RecordSpec spec;
            std::uint32_t stream;
        };
        std::vector<std::vector<test::RecordSpec>> records(streams);  // in slot order
        std::vector<std::vector<std::size_t>> open_calls(streams);    // indices, innermost last
        for (int step = 0; step < 300; ++step) {
            clock += 1 + random() % 3;  // distinct times: what ties mean is tested elsewhere
            const auto stream = static_cast<std::uint32_t>(random() % streams);
            auto &mine = records[stream];
            auto &open = open_calls[stream];
            switch (random() % 3) {
                case 0:
                    open.push_back(mine.size());
                    mine.push_back({.state = State::pending, .begin = clock});
                    expected.emplace_back(clock, "requested");
                    break;
                case 1:
                    if (open.empty()) break;
                    mine[open.back()].end = clock;
                    mine[open.back()].state = State::complete;
                    open.pop_back();
                    expected.emplace_back(clock, "acquired");
                    break;
                default:
                    mine.push_back({.kind = RecordKind::release, .begin = clock});
                    expected.emplace_back(clock, "released");
            }
        }
        // Chunks of all streams mixed, each stream's in order.
        std::vector<std::size_t> done(streams, 0);
        std::vector<std::uint32_t> sequence(streams, 0);
        for (bool more = true; more;) {
            more = false;
            for (std::uint32_t stream = 0; stream < streams; ++stream) {
                if (done[stream] == records[stream].size()) continue;
                more = true;
                const std::uint64_t begin = records[stream][done[stream]].begin;
                auto &chunk = spool.chunk({.stream = stream + 1,
                                           .sequence = sequence[stream]++,
                                           .claimed = {begin + random() % 5, begin, kEpochNs + begin}});
                for (std::uint64_t n = 1 + random() % 60; n > 0 && done[stream] < records[stream].size(); --n) {
                    chunk.record(records[stream][done[stream]++]);
                }
            }
        }
        std::sort(expected.begin(), expected.end());
        Outline want;
        want.reserve(expected.size());
        for (const auto &[time, name] : expected) want.push_back(name + " " + std::to_string(time));
        ASSERT_EQ(outline(read_spool(spool)), want) << "round " << round;
    }
}

TEST_F(EventSourceTest, KeepsTwoSpoolsApart) {
    SpoolFixture older;
    older.chunk({.process = 1, .stream = 1}).process("old", {}, 1).file(1, "/old", 1, 2);
    SpoolFixture newer(wire::ClockKind::monotonic, {0, 0, kEpochNs + 1'000'000});
    auto &chunk = newer.chunk({.process = 1, .stream = 1});
    chunk.process("new", {}, 1).file(1, "/new", 2, 2);
    chunk.acquire({.begin = 10, .end = 20, .file = 1, .description = 1});
    newer.write(spool_path("a-newer.spool"));
    older.write(spool_path("b-older.spool"));
    const auto source = open();
    const auto events = read(*source);
    ASSERT_EQ(outline(events), (Outline{"started 1", "started 1000001", "requested 1000010", "acquired 1000020"}));
    EXPECT_NE(events[0].process, events[1].process);
    EXPECT_NE(events[0].thread, events[1].thread);
    EXPECT_EQ(source->process(events[0].process).name, "old");
    EXPECT_EQ(source->process(events[2].process).name, "new");
    EXPECT_EQ(source->file(events[2].file).path, "/new");
    EXPECT_NE(events[2].description, 1U);
}

TEST_F(EventSourceTest, ShowsTheRestWhenASpoolCannotBeRead) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 1, .end = 2});
    spool.drop(5);
    spool.write(spool_path("good.spool"));
    SpoolFixture::write_bytes(spool_path("empty.spool"), "");
    SpoolFixture::write_bytes(spool_path("foreign.spool"), std::string(9'000, 'x'));
    const auto source = open();
    EXPECT_EQ(read(*source).size(), 2U);
    const SourceNotes notes = source->notes();
    EXPECT_EQ(notes.dropped, 5U);
    ASSERT_EQ(notes.messages.size(), 2U);
    EXPECT_NE(notes.messages[0].find("empty.spool: is empty"), std::string::npos) << notes.messages[0];
    EXPECT_NE(notes.messages[1].find("foreign.spool: is not a spool"), std::string::npos) << notes.messages[1];
}

TEST_F(EventSourceTest, ReadsTheNewestOfTooManySpoolsAndItsOwn) {
    constexpr std::uint64_t kSpools = 65;
    for (std::uint64_t age = 0; age < kSpools; ++age) {
        SpoolFixture spool(wire::ClockKind::monotonic, {0, 0, kEpochNs + kSpools - age});
        spool.chunk().acquire({.begin = 0, .end = 0});
        spool.write(spool_path(std::to_string(age) + ".spool"));
    }
    const auto oldest = [&](const std::string &own) {
        SourceOptions options;
        options.own_spool = own;
        const auto source = open(options);
        const std::vector<Event> events = read(*source);
        EXPECT_EQ(source->notes().unread, 1U);
        EXPECT_FALSE(source->notes().own_unread);
        EXPECT_EQ(events.size(), 2U * 62);
        return events.empty() ? 0 : events.front().t_ns - kEpoch;
    };
    EXPECT_EQ(oldest({}), 4);
    EXPECT_EQ(oldest(spool_path("0.spool")), 4);
    EXPECT_EQ(oldest(spool_path("64.spool")), 1);
    EXPECT_EQ(spool_number(3), 3U);
    EXPECT_EQ(spool_number(64), 61U);
}

TEST_F(EventSourceTest, TellsWhenTheSpoolThatMattersIsNotRead) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 1, .end = 2});
    spool.write(spool_path("good.spool"));
    SourceOptions options;
    options.own_spool = spool_path("gone.spool");
    EXPECT_TRUE(open(options)->notes().own_unread);
    options.own_spool = spool_path("good.spool");
    EXPECT_FALSE(open(options)->notes().own_unread);
}

TEST_F(EventSourceTest, SaysWhenNothingWasRecorded) {
    const auto source = open();
    EXPECT_TRUE(read(*source).empty());
    ASSERT_EQ(source->notes().messages.size(), 1U);
    EXPECT_NE(source->notes().messages[0].find("nothing has been recorded in session 's'"), std::string::npos);
    const auto missing = open_session(Session{"gone", folder_ / "sessions/gone"});
    ASSERT_FALSE(missing);
    EXPECT_NE(missing.error().message.find("'gone'"), std::string::npos);
}

TEST_F(EventSourceTest, CountsTornSlots) {
    SpoolFixture spool;
    auto &chunk = spool.chunk();
    chunk.acquire({.begin = 1, .end = 2});
    chunk.torn();
    chunk.release({.begin = 3});
    spool.write(spool_path());
    const auto source = open();
    EXPECT_EQ(read(*source).size(), 3U);
    EXPECT_EQ(source->notes().torn, 1U);
}

TEST_F(EventSourceTest, SurvivesRandomDamage) {
    SpoolFixture spool;
    for (std::uint32_t stream = 1; stream <= 4; ++stream) {
        auto &chunk = spool.chunk({.process = stream, .stream = stream});
        chunk.process("some program with arguments", {}, 1).file(stream, "/tmp/a", 0, 2);
        for (std::uint64_t i = 3; i < 40; ++i) chunk.acquire({.begin = i, .end = i + 50, .file = stream});
    }
    const std::string whole = spool.bytes();
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 500; ++round) {
        std::string bytes = whole;
        for (std::uint64_t hits = 1 + random() % 60; hits > 0; --hits) {
            SpoolFixture::poke(bytes, random() % (bytes.size() - 8), random() >> random() % 64);
        }
        SpoolFixture::write_bytes(spool_path(), bytes);
        const auto source = open();
        std::size_t count = 0;
        std::int64_t last = 0;
        Event event;
        while (source->next(event)) {
            ASSERT_GE(event.t_ns, last);
            ASSERT_GE(event.duration_ns, 0);
            ASSERT_LT(static_cast<std::size_t>(event.family), wire::kFamilyCount);
            last = event.t_ns;
            ASSERT_LT(++count, 10'000U);
        }
        source->notes();
    }
}

}  // namespace
}  // namespace planloop::analysis
