// Deadlocks of processes that share their locks, or wait for their children.
#include <gtest/gtest.h>

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "analysis/deadlock.h"
#include "tests/support/deadlock_scene.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::add_files;
using test::Outcome;
using test::pids_of;
using test::Scene;
using test::Target;
using test::target;
using wire::Mode;

constexpr int kSigkill = 9;

TEST(SharedDeadlock, IsLikelyWhileASharerRunsAndCertainWhenItWaitsForAParticipant) {
    Scene scene;
    add_files(scene, 2);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, target(1, 1));
    scene.fork_silently(one, 103);
    scene.lock(two, target(2, 2));
    scene.request(one, target(2, 3));
    scene.request(two, target(1, 4));
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    const Finding &finding = *outcome.find("deadlock");
    EXPECT_EQ(finding.certainty, Certainty::likely);
    ASSERT_EQ(finding.also_held_by.size(), 1u);
    EXPECT_EQ(finding.also_held_by[0].pid, 103);
    EXPECT_NE(finding.summary.find("103 shares the open file of /tmp/1"), std::string::npos) << finding.summary;
}

// What is told while it stands, with whom and how certain.
struct Told : DeadlockListener {
    void deadlock_stands(const StandingDeadlock &deadlock) override {
        told.emplace_back(pids_of(deadlock.finding), deadlock.finding.certainty);
    }
    void deadlock_over(std::uint64_t /*id*/) override {}
    std::vector<std::pair<std::set<std::int32_t>, Certainty>> told;
};

std::vector<std::pair<std::set<std::int32_t>, Certainty>> told_of(const Scene &scene) {
    Told listener;
    AnalysisOptions options;
    options.listener = &listener;
    static_cast<void>(scene.play(options));
    return listener.told;
}

TEST(SharedDeadlock, IsToldAgainWhenNobodyCanOpenItAnyMore) {
    for (const bool killed : {false, true}) {
        Scene scene;
        add_files(scene, 2);
        const Actor taker = scene.process(101, "sh"), two = scene.process(102, "y");
        scene.lock(taker, target(1, 1));
        const Actor heir = scene.fork(taker, 103, "sh");
        scene.lock(two, target(2, 2));
        scene.request(two, target(1, 4));
        scene.request(heir, target(2, 3));
        const std::set<std::int32_t> both{102, 103};
        EXPECT_EQ(told_of(scene), (decltype(Told::told){{both, Certainty::possible}}));
        if (killed)
            scene.ended(101, kSigkill);
        else
            scene.exit(taker);
        EXPECT_EQ(told_of(scene), (decltype(Told::told){{both, Certainty::possible}, {both, Certainty::confirmed}}));
    }
}

// A supervisor sees some milliseconds late who has the open file.
TEST(SharedDeadlock, ClosesWhenASharerIsFound) {
    Scene scene;
    add_files(scene, 2);
    const Actor taker = scene.process(101, "x"), two = scene.process(102, "y"), three = scene.process(103, "z");
    scene.lock(taker, target(1, 1));
    scene.lock(two, target(2, 2));
    scene.request(two, target(1, 4));
    scene.request(three, target(2, 3));
    EXPECT_TRUE(told_of(scene).empty());
    scene.sharer(taker, target(1, 1), 103, 11);
    scene.exit(taker);
    const auto told = told_of(scene);
    ASSERT_EQ(told.size(), 2U);
    EXPECT_EQ(told.back(), (std::pair{std::set<std::int32_t>{102, 103}, Certainty::confirmed}));
    EXPECT_EQ(scene.play().count("deadlock"), 1U);
}

// The call that it interrupted goes on to wait when the handler returns.
TEST(SharedDeadlock, ClosesWhenASignalHandlerGetsALock) {
    Scene scene;
    add_files(scene, 2);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y"), reader = scene.process(103, "z");
    Target shared = target(1, 5);
    shared.mode = Mode::shared;
    scene.lock(reader, shared);
    scene.lock(two, target(2, 2));
    scene.request(two, target(1, 4));
    scene.request(one, target(2, 3));
    shared.description = 6;
    scene.lock(one, shared);
    scene.unlock(reader, target(1, 5));
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1U);
    EXPECT_EQ(pids_of(*outcome.find("deadlock")), (std::set<std::int32_t>{101, 102}));
}

// flock a flock b: parents wait for children, only the children wait for locks.
TEST(SharedDeadlock, ParentsThatWaitForTheirChildrenMakeItCertain) {
    Scene scene;
    add_files(scene, 2);
    const Actor parent1 = scene.process(101, "flock"), parent2 = scene.process(201, "flock");
    scene.lock(parent1, target(1, 1));
    scene.lock(parent2, target(2, 2));
    const Actor child1 = scene.fork(parent1, 102, "flock"), child2 = scene.fork(parent2, 202, "flock");
    scene.waits_for_child(parent1, 102);
    scene.request(child1, target(2, 3));
    scene.request(child2, target(1, 4));
    Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_NE(outcome.find("deadlock")->certainty, Certainty::confirmed) << "the other parent may still run";
    scene.waits_for_child(parent2, -1);
    outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->certainty, Certainty::confirmed);
    EXPECT_EQ(pids_of(*outcome.find("deadlock")), (std::set<std::int32_t>{102, 202}));
}

TEST(SharedDeadlock, SelfDeadlockThroughASecondDescriptor) {
    Scene scene;
    add_files(scene, 1);
    const Actor one = scene.process(101, "x");
    scene.lock(one, target(1, 1));
    Target again = target(1, 2);
    again.fd = 77;
    scene.request(one, again);
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.count("deadlock"), 0u);
    ASSERT_EQ(outcome.count("self_deadlock"), 1u);
    EXPECT_EQ(outcome.find("self_deadlock")->participants.size(), 1u);
    EXPECT_NE(outcome.find("self_deadlock")->summary.find("through one descriptor"), std::string::npos);
}

// exec 9>f; flock 9; flock f true
TEST(SharedDeadlock, SelfDeadlockThroughAnInheritedDescriptorNamesTheScript) {
    Scene scene;
    add_files(scene, 1);
    const Actor shell = scene.process(101, "bash");
    Target inherited = target(1, 1);
    const Actor first = scene.fork(shell, 102, "flock");
    scene.sharer(first, inherited, shell.pid, inherited.fd);
    scene.lock(first, inherited);
    scene.exit(first);
    const Actor second = scene.fork(shell, 103, "flock2");
    scene.waits_for_child(shell, 103);
    Target own = target(1, 2);
    own.fd = 3;
    scene.request(second, own);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("self_deadlock"), 1u);
    const Finding &found = *outcome.find("self_deadlock");
    EXPECT_EQ(pids_of(found), std::set<std::int32_t>{103});
    EXPECT_EQ(found.participants.front().started_by.pid, 101);
    for (const char *words : {"inherited, started by bash 101 (bash --test)", "kill 103)", "as flock 9"})
        EXPECT_NE(found.summary.find(words), std::string::npos) << found.summary;
}

// It waits behind a third; then its parent gets the lock, through an open file that both have, and leaves it behind.
TEST(SharedDeadlock, ClosesWhenAnotherGetsTheLockThroughTheOpenFileOfWhoWaits) {
    Scene scene;
    add_files(scene, 1);
    const Actor third = scene.process(101, "x"), parent = scene.process(102, "y");
    scene.lock(parent, target(1, 2));
    scene.unlock(parent, target(1, 2));
    const Actor child = scene.fork(parent, 103, "y");
    scene.lock(third, target(1, 1));
    const std::uint64_t behind = scene.request(parent, target(1, 2));
    Target own = target(1, 3);
    own.fd = 77;
    scene.request(child, own);
    EXPECT_TRUE(told_of(scene).empty());
    scene.exit(third);
    scene.acquired(behind);
    Scene released = scene;
    EXPECT_TRUE(told_of(scene).empty()) << "the parent runs and will release it";
    const std::set<std::int32_t> alone{103};
    Scene closed = scene;
    scene.exit(parent);  // leaves the lock to who waits for it
    closed.close(parent, target(1, 2).fd);
    for (const Scene &one : {scene, closed}) {
        EXPECT_EQ(told_of(one), (decltype(Told::told){{alone, Certainty::confirmed}}));
        EXPECT_EQ(one.play().count("self_deadlock"), 1U);
    }
    released.unlock(parent, target(1, 2));
    EXPECT_EQ(released.play().count("self_deadlock"), 0U);
}

// Who waits for itself is let go by a sharer, but another was first in the queue.
TEST(SharedDeadlock, ThatASharerOpenedIsNotMadeCertainByWhoCameBetween) {
    for (const char *how : {"exits", "is killed", "unlocks", "stays for ever"}) {
        Scene scene;
        add_files(scene, 2);
        const Actor parent = scene.process(101, "x"), next = scene.process(102, "y"), other = scene.process(103, "z");
        scene.lock(parent, target(1, 1));
        const std::uint64_t first = scene.request(next, target(1, 2));
        const Actor sharer = scene.fork(parent, 104, "x");
        Target own = target(1, 3);
        own.fd = 77;
        const std::uint64_t second = scene.request(parent, own);
        scene.at(100'000);
        scene.unlock(sharer, target(1, 1));
        scene.acquired(first);
        if (std::string(how) == "exits") scene.exit(next);
        if (std::string(how) == "is killed") scene.ended(102, kSigkill);
        if (std::string(how) == "unlocks") scene.unlock(next, target(1, 2));
        if (std::string(how) == "stays for ever") {
            scene.lock(other, target(2, 5));  // behind one that waits for itself
            own.file = 2;
            scene.request(other, own);
            scene.request(next, target(2, 7));
        } else {
            scene.acquired(second);
        }
        const Outcome outcome = scene.play();
        const Finding *found = nullptr;
        for (const Finding &one : outcome.report.findings)
            if (one.kind == "self_deadlock" && pids_of(one) == std::set<std::int32_t>{101}) found = &one;
        ASSERT_NE(found, nullptr) << how;
        EXPECT_EQ(found->certainty, Certainty::possible) << how << ": " << found->summary;
        EXPECT_NE(found->summary.find("until x 104 released /tmp/1"), std::string::npos) << found->summary;
        EXPECT_EQ(found->to_ns / 1'000'000, 100) << how;
    }
}

// kill(child), waitpid(child): until it is dead the child seems to wait for its parent, which waits for it.
TEST(SharedDeadlock, ThatAParentClosesByWaitingForAChildThatItKilledIsNone) {
    struct Case {
        std::int64_t dies_after_us;
        bool told, seen_first, shared;
        const char *what;
    };
    const Case cases[] = {
        {900, false, false, false, "at once"},
        {900, false, true, false, "at once, and a supervisor sees it first"},
        {900, false, false, true, "at once, and it was a possible one before"},
        {500'000, true, false, false, "somebody else kills it, later"},
        {500'000, true, true, true, "somebody else kills it, later, and it was a possible one before"},
    };
    for (const Case &one : cases) {
        Scene scene;
        add_files(scene, 1);
        const Actor parent = scene.process(101, "x");
        if (!one.shared) scene.lock(parent, target(1, 1));
        const Actor child = scene.fork(parent, 102, "y");
        if (one.shared) {
            scene.lock(parent, target(1, 1));
            scene.sharer(parent, target(1, 1), 102, 11);
        } else {
            scene.close(child, target(1, 1).fd);
        }
        Target own = target(1, 2);
        own.fd = 77;
        scene.request(child, own);
        scene.at(1'000'000);
        scene.waits_for_child(parent, 102);
        scene.at(1'000'000 + one.dies_after_us);
        if (one.seen_first) scene.ended(102, kSigkill);
        scene.reaps(parent, 102);
        scene.unlock(parent, target(1, 1));
        const Outcome outcome = scene.play();
        const Finding *found = outcome.find("self_deadlock");
        if (one.told || one.shared) {
            ASSERT_NE(found, nullptr) << one.what;
            EXPECT_EQ(found->certainty, one.told ? Certainty::confirmed : Certainty::possible) << one.what;
        } else {
            EXPECT_EQ(found, nullptr) << one.what;
        }
    }
}

// `--on-deadlock terminate` ends all of it within milliseconds: the parent is not told, it dies too.
TEST(SharedDeadlock, ThatAParentClosesAndThatEndsForBothAtOnceIsTold) {
    Scene scene;
    add_files(scene, 1);
    const Actor parent = scene.process(101, "x");
    scene.lock(parent, target(1, 1));
    const Actor child = scene.fork(parent, 102, "y");
    Target own = target(1, 2);
    own.fd = 77;
    scene.request(child, own);
    scene.waits_for_child(parent, 102);
    scene.ended(102, kSigkill);
    scene.ended(101, kSigkill);
    EXPECT_EQ(scene.play().count("self_deadlock"), 1U);
}

}  // namespace
}  // namespace planloop::analysis
