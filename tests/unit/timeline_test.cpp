#include "analysis/timeline.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <iostream>
#include <map>
#include <random>
#include <sstream>

#include "tests/support/chaos.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;
using wire::Mode;

std::string text_of(const Outcome &outcome) {
    std::ostringstream text;
    for (const TimelineEntry &line : outcome.lines) {
        text << line.t_ns << ' ' << static_cast<int>(line.kind) << ' ' << line.pid << ' ' << line.lock << ' '
             << line.lock_entry_id << ' ' << line.reason << ' ' << line.wait_ns << ' ' << line.hold_ns;
        for (const Blocker &blocker : line.blocked_by) text << ' ' << blocker.pid << ':' << blocker.ns;
        text << '\n';
    }
    for (const Finding &finding : outcome.report.findings) text << finding.kind << ' ' << finding.summary << '\n';
    for (const LockRow &row : outcome.report.locks)
        text << row.id << ' ' << row.wait.total << ' ' << row.hold.p99 << '\n';
    for (const HeldLock &held : outcome.report.held) text << held.lock << ' ' << held.pid << '\n';
    for (const WaitingRequest &waiting : outcome.report.waiting) text << waiting.lock << ' ' << waiting.pid << '\n';
    return text.str();
}

TEST(Timeline, UnlockThatFailedIsAFailedCallAndEndsNothing) {
    Scene scene;
    scene.file(1, "/tmp/a", 1);
    const Actor who = scene.process(100, "x");
    scene.lock(who, {});
    scene.unlock(who, {});
    scene.source.events.back().error = EINVAL;
    scene.unlock(who, {.file = 0, .fd = 77});
    scene.source.events.back().error = EBADF;
    const Outcome outcome = scene.play();
    const auto failed = outcome.of(EventKind::lock_failed);
    ASSERT_EQ(failed.size(), 2u);
    EXPECT_EQ(failed[0]->error, EINVAL);
    EXPECT_EQ(failed[1]->error, EBADF);
    EXPECT_TRUE(outcome.of(EventKind::lock_released).empty());
    EXPECT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.events, 6u);
}

TEST(Timeline, AnyInputGivesOrderedLinesWhoseSumsAgreeAndTheSameOnesEachTime) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    for (unsigned seed = first; seed < first + 200; ++seed) {
        const Scene scene = test::chaos(seed);
        const Outcome outcome = scene.play();
        std::size_t acquired = 0, failed = 0, released = 0;
        std::int64_t before = 0;
        for (const TimelineEntry &line : outcome.lines) {
            ASSERT_LE(before, line.t_ns) << "seed " << seed;
            before = line.t_ns;
            acquired += line.kind == EventKind::lock_acquired ? 1u : 0u;
            failed += line.kind == EventKind::lock_failed ? 1u : 0u;
            released += line.kind == EventKind::lock_released ? 1u : 0u;
            ASSERT_GE(line.hold_ns, 0) << "seed " << seed;
            for (const Blocker &blocker : line.blocked_by) ASSERT_LE(blocker.ns, line.wait_ns) << "seed " << seed;
        }
        std::uint64_t row_acquired = 0, row_failed = 0;
        for (const LockRow &row : outcome.report.locks) {
            row_acquired += row.acquisitions;
            row_failed += row.failed;
        }
        EXPECT_EQ(outcome.lines.size(), outcome.report.events) << "seed " << seed;
        EXPECT_EQ(acquired, row_acquired) << "seed " << seed;
        EXPECT_EQ(failed, row_failed) << "seed " << seed;
        // Each acquisition is released once or still held; what is held in several parts is listed part by part.
        EXPECT_LE(acquired, released + outcome.report.held.size()) << "seed " << seed;
        EXPECT_LE(released, acquired) << "seed " << seed;
        ASSERT_EQ(text_of(outcome), text_of(scene.play())) << "seed " << seed;
    }
}

TEST(Timeline, WaitsAndHoldsHandedOutAddUpToTheStatistics) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    for (unsigned seed = first; seed < first + 200; ++seed) {
        const Outcome outcome = test::chaos(seed).play();
        std::map<std::string, std::int64_t> wait, hold;
        for (const TimelineEntry &line : outcome.lines) {
            if (line.kind == EventKind::lock_acquired) wait[line.lock] += line.wait_ns;
            hold[line.lock] += line.hold_ns;
        }
        for (const TimelineEntry &one : outcome.vain_waits) wait[one.lock] += one.wait_ns;
        std::map<std::string, std::int64_t> open;  // by entry: parts of one hold count once
        for (const HeldLock &held : outcome.report.held) {
            const std::int64_t ns = outcome.report.to_utc_ns - outcome.report.from_utc_ns - held.since_ns;
            if (open.emplace(held.lock_entry_id, ns).second) hold[held.lock] += ns;
        }
        for (const LockRow &row : outcome.report.locks) {
            EXPECT_EQ(wait[row.id], row.wait.total) << "seed " << seed << ' ' << row.id;
            EXPECT_EQ(hold[row.id], row.hold.total) << "seed " << seed << ' ' << row.id;
        }
    }
}

TEST(Timeline, BlockerNamesTheHoldAndWhenItCeasedToStandInTheWay) {
    Scene scene;
    scene.file(1, "/tmp/a", 1);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    scene.unlock(one, {.description = 1});
    const std::uint64_t second = scene.lock(one, {.description = 1});
    const std::uint64_t waits = scene.at(1'000).request(two, {.description = 2});
    scene.at(2'000).unlock(one, {.description = 1});
    scene.at(2'500).acquired(waits);
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 2u);
    EXPECT_FALSE(released[0]->awaited);
    EXPECT_TRUE(released[1]->awaited);
    const std::vector<Blocker> &blockers = outcome.of(EventKind::lock_acquired)[2]->blocked_by;
    ASSERT_EQ(blockers.size(), 1u);
    EXPECT_EQ(blockers[0].entry, second);
    EXPECT_EQ(blockers[0].until_utc_ns, released[1]->utc_ns);
}

TEST(Timeline, AWaitThatEndsWithItsProcessIsInVain) {
    Scene scene;
    scene.file(1, "/tmp/a", 1);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    scene.at(1'000).request(two, {.description = 2});
    scene.at(4'000).ended(102, 9);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.vain_waits.size(), 1u);
    EXPECT_EQ(outcome.vain_waits[0].wait_ns, 3'000'000);
    EXPECT_EQ(outcome.vain_waits[0].error, ECANCELED);
    EXPECT_EQ(outcome.vain_waits[0].blocked_by.size(), 1u);
}

Scene upgrade_that_waits_and_fails() {
    Scene scene;
    scene.file(1, "/tmp/a", 1001);
    scene.file(2, "/tmp/b", 1002);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, {.description = 1, .mode = Mode::shared});
    scene.lock(two, {.description = 2, .mode = Mode::shared});
    const std::uint64_t upgrade = scene.request(one, {.description = 1});
    scene.lock(two, {.file = 2, .fd = 5, .description = 3});
    scene.at(3'000'000).failed(upgrade, EINTR);
    return scene;
}

TEST(Timeline, WaitsForWhatOnlyALaterEventTells) {
    const Outcome outcome = upgrade_that_waits_and_fails().play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 1u);
    EXPECT_EQ(released[0]->reason, "lost");
    EXPECT_EQ(released[0]->certainty, EndCertainty::exact);
}

TEST(Timeline, ButNoLongerThanItMay) {
    Scene scene = upgrade_that_waits_and_fails();
    scene.source.events.back().t_ns += 1;
    AnalysisOptions options;
    options.longest_delay_ns = 1'000'000'000;
    const Outcome outcome = scene.play(options);
    EXPECT_EQ(outcome.lines.size(), outcome.report.events);
    // The line that shows that time has passed is the failure itself, so the truth is known by then.
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->reason, "lost");

    Scene busy = upgrade_that_waits_and_fails();
    const Event failure = busy.source.events.back();
    busy.source.events.pop_back();
    const Actor three = busy.at(2'000'000).process(103, "z");
    busy.lock(three, {.file = 2, .fd = 5, .description = 9, .blocking = false});
    busy.source.events.push_back(failure);
    const Outcome hurried = busy.play(options);
    EXPECT_EQ(hurried.of(EventKind::lock_released)[0]->reason, "converted");
    EXPECT_EQ(busy.play().of(EventKind::lock_released)[0]->reason, "lost");
}

}  // namespace
}  // namespace planloop::analysis
