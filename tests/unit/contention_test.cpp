// convoy and starvation: told, and not told of what looks alike.
#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;

// Processes that take turns at one lock; times in microseconds.
struct Turns {
    explicit Turns(std::size_t count) {
        scene.file(1, "/tmp/lock", 10);
        for (std::size_t i = 0; i < count; ++i)
            actors.push_back(scene.process(static_cast<std::int32_t>(100 + i), "worker"));
        asked.resize(count);
        scene.at(1'000);
    }
    Target target(std::size_t who) const {
        Target target;
        target.description = static_cast<std::uint32_t>(who + 1);
        return target;
    }
    void ask(std::size_t who) { asked[who] = scene.request(actors[who], target(who)); }
    void get(std::size_t who) { scene.acquired(asked[who]); }
    void release(std::size_t who) { scene.unlock(actors[who], target(who)); }
    void pass(std::int64_t us) { scene.at(scene.now_us() + us); }

    // Each in turn, all others queued; who let go asks again at once.
    void rounds(int times, std::int64_t hold_us, std::int64_t idle_us) {
        for (std::size_t i = 0; i < actors.size(); ++i) ask(i);
        get(0);
        for (int turn = 0; turn < times; ++turn) {
            const std::size_t who = static_cast<std::size_t>(turn) % actors.size();
            pass(hold_us);
            release(who);
            pass(idle_us);
            get((who + 1) % actors.size());
            ask(who);
        }
    }

    Scene scene;
    std::vector<Actor> actors;
    std::vector<std::uint64_t> asked;
};

TEST(Convoy, QueueThatLastsThroughShortHoldsIsTold) {
    Turns turns(8);
    turns.rounds(200, 100, 100);
    const Outcome outcome = turns.scene.play();
    ASSERT_EQ(outcome.count("convoy"), 1U);
    const Finding &finding = *outcome.find("convoy");
    EXPECT_NE(finding.summary.find("/tmp/lock"), std::string::npos);
    EXPECT_NE(finding.summary.find("of up to 7"), std::string::npos) << finding.summary;
    EXPECT_EQ(finding.severity, Severity::info);
}

struct Silent {
    const char *what;
    std::size_t processes;
    int turns;
    std::int64_t hold_us, idle_us;
};

TEST(Convoy, WhatLooksAlikeIsNotTold) {
    const Silent cases[] = {
        {"two that take turns: no queue behind the next one", 2, 400, 100, 100},
        {"three: each waits for two holds", 3, 400, 1'000, 10},
        {"a burst at a start", 8, 20, 1'000, 1'000},
        {"all of it costs little", 8, 60, 20, 20},
    };
    for (const Silent &one : cases) {
        Turns turns(one.processes);
        turns.rounds(one.turns, one.hold_us, one.idle_us);
        EXPECT_EQ(turns.scene.play().count("convoy"), 0U) << one.what;
    }
}

// One waits while two others pass the lock to and fro.
Outcome overtaken(int times, std::int64_t hold_us, bool waiter_first) {
    Turns turns(3);
    turns.ask(0);
    turns.get(0);
    if (waiter_first) turns.ask(2);
    for (int i = 0; i < times; ++i) {
        const auto holder = static_cast<std::size_t>(i % 2);
        turns.ask(1 - holder);
        if (i == 0 && !waiter_first) turns.pass(1);
        turns.pass(hold_us);
        turns.release(holder);
        turns.get(1 - holder);
    }
    if (!waiter_first) turns.ask(2);
    turns.release(static_cast<std::size_t>(times % 2));
    turns.get(2);
    return turns.scene.play();
}

TEST(Starvation, CallThatIsOvertakenAgainAndAgainIsToldWithByWhom) {
    const Outcome outcome = overtaken(150, 10'000, true);
    ASSERT_EQ(outcome.count("starvation"), 1U);
    const Finding &finding = *outcome.find("starvation");
    ASSERT_EQ(finding.participants.size(), 1U);
    EXPECT_EQ(finding.participants[0].pid, 102);
    EXPECT_NE(finding.summary.find("150 calls that came later"), std::string::npos) << finding.summary;
    EXPECT_NE(finding.summary.find("worker 100 (75 times) and worker 101 (75 times)"), std::string::npos)
        << finding.summary;
}

TEST(Starvation, CallThatStillWaitsAtTheEndIsToldToo) {
    Turns turns(3);
    turns.ask(0);
    turns.get(0);
    turns.ask(2);
    for (int i = 0; i < 150; ++i) {
        const auto holder = static_cast<std::size_t>(i % 2);
        turns.ask(1 - holder);
        turns.pass(10'000);
        turns.release(holder);
        turns.get(1 - holder);
    }
    EXPECT_EQ(turns.scene.play().count("starvation"), 1U);
}

TEST(Starvation, WhatLooksAlikeIsNotTold) {
    EXPECT_EQ(overtaken(99, 20'000, true).count("starvation"), 0U) << "not often enough";
    EXPECT_EQ(overtaken(150, 1'000, true).count("starvation"), 0U) << "for less than a second";
    EXPECT_EQ(overtaken(150, 10'000, false).count("starvation"), 0U) << "it came last";
    Turns fair(8);
    fair.rounds(1'000, 2'000, 10);
    EXPECT_EQ(fair.scene.play().count("starvation"), 0U) << "each in turn";
}

}  // namespace
}  // namespace planloop::analysis
