#include "analysis/waits.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <iostream>
#include <map>
#include <random>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;
using wire::Family;
using wire::Mode;

Scene scene_with_file() {
    Scene scene;
    scene.file(1, "/tmp/a", 1001);
    return scene;
}

TEST(Waits, UncontendedLockHasNoBlocker) {
    Scene scene = scene_with_file();
    const Actor one = scene.process(101, "x");
    const std::uint64_t entry = scene.request(one, {.description = 1});
    scene.at(scene.now_us() + 2).acquired(entry);
    const Outcome outcome = scene.play();
    EXPECT_TRUE(outcome.of(EventKind::lock_acquired)[0]->blocked_by.empty());
    EXPECT_EQ(outcome.report.locks[0].contended, 0u);
}

TEST(Waits, BlockersShareTheWaitAmongThem) {
    Scene scene = scene_with_file();
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y"), three = scene.process(103, "z");
    scene.at(10).lock(one, {.description = 1});
    const std::uint64_t second = scene.at(20).request(two, {.description = 2});
    const std::uint64_t third = scene.at(30).request(three, {.description = 3});
    scene.at(1'000).unlock(one, {.description = 1});
    scene.at(1'005).acquired(second);
    scene.at(3'000).unlock(two, {.description = 2});
    scene.at(3'010).acquired(third);
    const Outcome outcome = scene.play();
    const TimelineEntry &last = *outcome.of(EventKind::lock_acquired)[2];
    EXPECT_EQ(last.wait_ns, 2'980'000);
    ASSERT_EQ(last.blocked_by.size(), 2u);
    EXPECT_EQ(last.blocked_by[0].pid, 102);
    EXPECT_EQ(last.blocked_by[0].ns, 1'995'000);
    EXPECT_EQ(last.blocked_by[0].process, "y");
    EXPECT_EQ(last.blocked_by[1].pid, 101);
    EXPECT_EQ(last.blocked_by[1].ns, 970'000);
    EXPECT_EQ(outcome.report.locks[0].contended, 2u);
    EXPECT_EQ(outcome.report.locks[0].wait.max, 2'980'000);
}

TEST(Waits, OverlappingHoldsOfOneThreadCountOnce) {
    Scene scene = scene_with_file();
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    Target left{.description = 1, .family = Family::posix, .start = 0, .len = 10}, right = left;
    right.start = 10;
    scene.lock(one, left);
    scene.lock(one, right);
    const std::uint64_t wait = scene.at(100).request(two, {.description = 2, .family = Family::posix});
    scene.at(300).unlock(one, left);
    scene.at(500).unlock(one, right);
    scene.at(510).acquired(wait);
    const Outcome outcome = scene.play();
    const auto &blockers = outcome.of(EventKind::lock_acquired)[2]->blocked_by;
    ASSERT_EQ(blockers.size(), 1u);
    EXPECT_EQ(blockers[0].ns, 400'000);
}

TEST(Waits, LongWaitForNobodyKnownWasForAnUntracedOne) {
    for (const bool traced : {false, true}) {
        Scene scene = scene_with_file();
        const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
        if (traced) scene.lock(two, {.description = 2});
        const std::uint64_t wait = scene.at(10).request(one, {.description = 1});
        if (traced) scene.at(50).unlock(two, {.description = 2});
        scene.at(300'010).acquired(wait);
        const Outcome outcome = scene.play();
        const auto &blockers = outcome.of(EventKind::lock_acquired).back()->blocked_by;
        ASSERT_EQ(blockers.size(), 1u);
        EXPECT_EQ(blockers[0].pid, traced ? 102 : 0);
        EXPECT_EQ(blockers[0].ns, traced ? 40'000 : 300'000'000);
    }
}

TEST(Waits, RepeatedTriesAreOneWait) {
    for (const bool reopens : {false, true}) {
        Scene scene = scene_with_file();
        const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
        scene.lock(one, {.description = 1});
        std::uint32_t description = 2;
        const std::int64_t begin = 1'000;
        for (int i = 0; i < 200; ++i) {
            scene.at(begin + i * 100);
            const std::uint64_t entry = scene.request(two, {.fd = 5, .description = description, .blocking = false});
            scene.failed(entry, EAGAIN);
            if (reopens) scene.close(two, 5, 1);
            if (reopens) ++description;
        }
        scene.at(begin + 19'950).unlock(one, {.description = 1});
        scene.at(begin + 20'000);
        const std::uint64_t entry = scene.request(two, {.fd = 5, .description = description, .blocking = false});
        scene.acquired(entry);
        const Outcome outcome = scene.play();
        const TimelineEntry &got = *outcome.of(EventKind::lock_acquired)[1];
        EXPECT_EQ(got.tries, 201u);
        EXPECT_EQ(got.wait_ns, 20'001'000);
        ASSERT_EQ(got.blocked_by.size(), 1u);
        EXPECT_EQ(got.blocked_by[0].pid, 101);
        EXPECT_EQ(got.blocked_by[0].ns, 19'950'000);
        EXPECT_EQ(outcome.of(EventKind::lock_failed).size(), 200u);
        for (const TimelineEntry *failed : outcome.of(EventKind::lock_failed)) {
            ASSERT_EQ(failed->blocked_by.size(), 1u);
            EXPECT_LE(failed->blocked_by[0].ns, failed->wait_ns);
        }
        const LockRow &row = outcome.report.locks[0];
        EXPECT_EQ(row.failed, 200u);
        EXPECT_EQ(row.contended, 1u);
        EXPECT_EQ(row.acquisitions, 2u);
        EXPECT_EQ(row.wait.total, 20'001'000 + 1'000);
        EXPECT_EQ(outcome.report.events, 2u + 200u * 2 + 2 + 1);
    }
}

TEST(Waits, TryThatFailsWithoutAKnownHolderNamesTheUntracedOne) {
    Scene scene = scene_with_file();
    const Actor one = scene.process(101, "x");
    scene.failed(scene.request(one, {.description = 1, .blocking = false}), EAGAIN);
    const Outcome outcome = scene.play();
    const auto &blockers = outcome.of(EventKind::lock_failed)[0]->blocked_by;
    ASSERT_EQ(blockers.size(), 1u);
    EXPECT_EQ(blockers[0].pid, 0);
    EXPECT_TRUE(outcome.report.waiting.empty());
}

TEST(Waits, OpenRequestsAndHoldsCountUpToTheEnd) {
    Scene scene = scene_with_file();
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.at(10).lock(one, {.description = 1});
    scene.at(100).request(two, {.description = 2});
    scene.at(1'111).process(103, "z");
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.report.locks[0].hold.total, 1'100'000);
    EXPECT_EQ(outcome.report.locks[0].wait.total, 1'011'000 + 1'000);
    ASSERT_EQ(outcome.report.waiting.size(), 1u);
    EXPECT_EQ(outcome.report.waiting[0].blocked_by[0].ns, 1'011'000);
}

TEST(Waits, SignalHandlersMayLockInsideALockCall) {
    Scene scene = scene_with_file();
    scene.file(2, "/tmp/b", 1002);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    const std::uint64_t outer = scene.request(two, {.description = 2});
    const Target inner{.file = 2, .fd = 8, .description = 3};
    scene.lock(two, inner);
    scene.unlock(two, inner);
    scene.unlock(one, {.description = 1});
    scene.acquired(outer);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].pid, 102);
}

// Blame, holders and statistics of random exclusive and shared flocks against sums made byte by byte of time.
TEST(Waits, RandomisedBlameAgreesWithANaiveSum) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 engine(seed);
    const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
    constexpr std::uint32_t kProcesses = 6;
    for (int run = 0; run < 50; ++run) {
        Scene scene = scene_with_file();
        std::vector<Actor> actors;
        for (std::uint32_t i = 0; i < kProcesses; ++i)
            actors.push_back(scene.process(static_cast<std::int32_t>(101 + i), "x"));
        struct State {
            Mode held = Mode::none, wanted = Mode::none;
            std::uint64_t entry = 0;
            std::map<std::int32_t, std::int64_t> blame;
        };
        std::vector<State> states(kProcesses);
        std::map<std::uint64_t, std::map<std::int32_t, std::int64_t>> expected;
        const auto stands = [&](std::uint32_t holder, std::uint32_t waiter) {
            return holder != waiter && states[holder].held != Mode::none &&
                   exclude(states[holder].held, states[waiter].wanted);
        };
        const auto pass_time = [&](std::int64_t us) {
            for (std::uint32_t w = 0; w < kProcesses; ++w)
                for (std::uint32_t h = 0; h < kProcesses && states[w].wanted != Mode::none; ++h)
                    if (stands(h, w)) states[w].blame[actors[h].pid] += us * 1'000;
        };
        for (int step = 0; step < 200; ++step) {
            const std::uint32_t who = random() % kProcesses;
            State &state = states[who];
            Target what{.description = who + 1};
            if (state.wanted != Mode::none) {
                bool free = true;
                for (std::uint32_t h = 0; h < kProcesses; ++h) free = free && !stands(h, who);
                if (!free) continue;
                scene.acquired(state.entry);
                expected[state.entry] = state.blame;
                state.held = state.wanted;
                state.wanted = Mode::none;
            } else if (state.held != Mode::none) {
                scene.unlock(actors[who], what);
                state.held = Mode::none;
            } else {
                what.mode = random() % 3 == 0 ? Mode::shared : Mode::exclusive;
                state.entry = scene.request(actors[who], what);
                state.wanted = what.mode;
                state.blame.clear();
            }
            const std::int64_t pause = 1 + random() % 50;
            pass_time(pause);
            scene.at(scene.now_us() - 1 + pause);
        }
        const Outcome outcome = scene.play();
        std::size_t acquisition = 0;
        for (const Event &event : scene.source.events) {
            if (event.kind != EventKind::lock_acquired) continue;
            const TimelineEntry &line = *outcome.of(EventKind::lock_acquired)[acquisition++];
            std::map<std::int32_t, std::int64_t> told;
            for (const Blocker &blocker : line.blocked_by) told[blocker.pid] = blocker.ns;
            ASSERT_EQ(told, expected[event.entry]) << "seed " << seed << " run " << run;
        }
        EXPECT_EQ(outcome.count("deadlock"), 0u);
    }
}

}  // namespace
}  // namespace planloop::analysis
