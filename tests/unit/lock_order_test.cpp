#include "analysis/lock_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;
using wire::Family;
using wire::Mode;

constexpr std::uint32_t kFiles = 8;

// Real descriptions are opened by one process; a number for each file and process keeps them apart.
Target target(const Actor &who, std::uint32_t file, Mode mode = Mode::exclusive, Family family = Family::flock) {
    return test::target(file, static_cast<std::uint32_t>(who.tid) * 100 + file, family, mode);
}

struct Stage {
    Scene scene;
    Actor one, two;
    Stage() {
        for (std::uint32_t i = 1; i <= kFiles; ++i) scene.file(i, "/tmp/" + std::to_string(i), 1000 + i);
        one = scene.process(101, "x");
        two = scene.process(102, "y");
    }
    // Takes the files one after the other and gives them back.
    void nest(const Actor &who, const std::vector<std::uint32_t> &files, Mode mode = Mode::exclusive,
              Family family = Family::flock) {
        for (const std::uint32_t file : files) scene.lock(who, target(who, file, mode, family));
        for (const std::uint32_t file : files) scene.unlock(who, target(who, file, Mode::none, family));
    }
    std::size_t inversions() const { return scene.play().count("lock_order_inversion"); }
};

TEST(LockOrder, ReportCountsWhoAskedForWhatWhileHoldingWhat) {
    Stage stage;
    for (int i = 0; i < 30; ++i) {
        const Actor child = stage.scene.fork(stage.one, 200 + i, "x");
        stage.nest(child, {1, 2, 3});
        stage.scene.exit(child);
    }
    const Outcome outcome = stage.scene.play();
    std::vector<std::tuple<std::string, std::string, std::uint64_t>> order;
    for (const LockOrder &one : outcome.report.order) order.emplace_back(one.held, one.wanted, one.times);
    const std::string a = "flock:fe:01:1001", b = "flock:fe:01:1002", c = "flock:fe:01:1003";
    EXPECT_EQ(order, (decltype(order){{a, b, 30}, {a, c, 30}, {b, c, 30}}));
}

TEST(LockOrder, InversionInALuckyRunIsFoundWithItsWitnesses) {
    for (const Family family : {Family::flock, Family::ofd, Family::posix}) {
        Stage stage;
        stage.nest(stage.one, {1, 2}, Mode::exclusive, family);
        stage.nest(stage.two, {2, 1}, Mode::exclusive, family);
        const Outcome outcome = stage.scene.play();
        ASSERT_EQ(outcome.count("lock_order_inversion"), 1u);
        EXPECT_EQ(outcome.count("deadlock"), 0u);
        const Finding &finding = *outcome.find("lock_order_inversion");
        EXPECT_EQ(finding.certainty, Certainty::likely);
        ASSERT_EQ(finding.participants.size(), 2u);
        EXPECT_EQ(finding.participants[0].pid, 101);
        EXPECT_EQ(finding.participants[1].pid, 102);
        EXPECT_EQ(finding.participants[0].waits_for, finding.participants[1].holds[0]);
        EXPECT_NE(finding.summary.find("/tmp/1 and /tmp/2"), std::string::npos) << finding.summary;
    }
}

TEST(LockOrder, LongCirclesAreFound) {
    for (const std::uint32_t size : {3u, 5u, 8u}) {
        Stage stage;
        for (std::uint32_t i = 0; i < size; ++i)
            stage.nest(stage.scene.process(static_cast<std::int32_t>(200 + i), "p"), {i + 1, (i + 1) % size + 1});
        const Outcome outcome = stage.scene.play();
        ASSERT_EQ(outcome.count("lock_order_inversion"), 1u) << size;
        EXPECT_EQ(outcome.find("lock_order_inversion")->participants.size(), size);
    }
}

TEST(LockOrder, SilentWhereNoScheduleCouldDeadlock) {
    struct Case {
        const char *what;
        void (*play)(Stage &);
    };
    const Case cases[] = {
        {"one order",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2, 3});
             stage.nest(stage.two, {1, 3});
             stage.nest(stage.two, {2, 3});
         }},
        {"one thread",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2});
             stage.nest(stage.one, {2, 1});
         }},
        {"a gate lock",
         [](Stage &stage) {
             stage.nest(stage.one, {3, 1, 2});
             stage.nest(stage.two, {3, 2, 1});
         }},
        {"readers only",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2}, Mode::shared);
             stage.nest(stage.two, {2, 1}, Mode::shared);
         }},
        {"hand over hand",
         [](Stage &stage) {
             for (const Actor &who : {stage.one, stage.two}) {
                 stage.scene.lock(who, target(who, 1));
                 stage.scene.lock(who, target(who, 2));
                 stage.scene.unlock(who, target(who, 1));
                 stage.scene.lock(who, target(who, 3));
                 stage.scene.unlock(who, target(who, 2));
                 stage.scene.unlock(who, target(who, 3));
                 stage.scene.lock(who, target(who, 1));
                 stage.scene.unlock(who, target(who, 1));
             }
         }},
        {"a try-lock, given up when refused",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2});
             stage.scene.lock(stage.two, target(stage.two, 2));
             Target attempt = target(stage.two, 1);
             attempt.blocking = false;
             stage.scene.lock(stage.two, attempt);
         }},
        {"a child that ended before the parent went on",
         [](Stage &stage) {
             const Actor child = stage.scene.fork(stage.one, 103, "c");
             stage.nest(child, {1, 2});
             stage.scene.exit(child);
             stage.scene.event(stage.one, EventKind::child_wait_ended).start = 103;
             stage.nest(stage.one, {2, 1});
         }},
        {"a parent that forked afterwards",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2});
             stage.nest(stage.scene.fork(stage.one, 103, "c"), {2, 1});
         }},
        {"one child after the other",
         [](Stage &stage) {
             for (const std::int32_t pid : {103, 104}) {
                 const Actor child = stage.scene.fork(stage.one, pid, "c");
                 if (pid == 103)
                     stage.nest(child, {1, 2});
                 else
                     stage.nest(child, {2, 1});
                 stage.scene.exit(child);
                 stage.scene.event(stage.one, EventKind::child_wait_ended).start = static_cast<std::uint64_t>(pid);
             }
         }},
    };
    for (const Case &one : cases) {
        Stage stage;
        one.play(stage);
        EXPECT_EQ(stage.inversions(), 0u) << one.what;
    }
}

// The twins of the silent cases.
TEST(LockOrder, FoundWhereASmallDifferenceLetsThemMeet) {
    struct Case {
        const char *what;
        void (*play)(Stage &);
    };
    const Case cases[] = {
        {"a gate that both share",
         [](Stage &stage) {
             for (const bool first : {true, false}) {
                 const Actor &who = first ? stage.one : stage.two;
                 stage.scene.lock(who, target(who, 3, Mode::shared));
                 stage.nest(who, first ? std::vector<std::uint32_t>{1, 2} : std::vector<std::uint32_t>{2, 1});
                 stage.scene.unlock(who, target(who, 3, Mode::none));
             }
         }},
        {"a try-lock that came first",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2});
             Target attempt = target(stage.two, 2);
             attempt.blocking = false;
             stage.scene.lock(stage.two, attempt);
             stage.scene.lock(stage.two, target(stage.two, 1));
         }},
        {"a child beside its parent",
         [](Stage &stage) {
             const Actor child = stage.scene.fork(stage.one, 103, "c");
             stage.nest(child, {1, 2});
             stage.nest(stage.one, {2, 1});
         }},
        {"children of one parent that waits for neither in between",
         [](Stage &stage) {
             for (const std::int32_t pid : {103, 104}) {
                 const Actor child = stage.scene.fork(stage.one, pid, "c");
                 stage.nest(child, pid == 103 ? std::vector<std::uint32_t>{1, 2} : std::vector<std::uint32_t>{2, 1});
                 stage.scene.exit(child);
             }
             for (const std::uint64_t pid : {103u, 104u})
                 stage.scene.event(stage.one, EventKind::child_wait_ended).start = pid;
         }},
        {"two that merely ran one after the other",
         [](Stage &stage) {
             stage.nest(stage.one, {1, 2});
             stage.scene.exit(stage.one);
             stage.nest(stage.scene.process(104, "z"), {2, 1});
         }},
    };
    for (const Case &one : cases) {
        Stage stage;
        one.play(stage);
        EXPECT_EQ(stage.inversions(), 1u) << one.what;
    }
}

// flock a flock b: the child asks for b while its parent, which waits for it, took a.
TEST(LockOrder, WhatAChildInheritedIsHeldByIt) {
    Stage stage;
    std::uint32_t first = 1, second = 2;
    for (const Actor &parent : {stage.one, stage.two}) {
        stage.scene.lock(parent, target(parent, first));
        const Actor child = stage.scene.fork(parent, parent.pid + 100, "flock");
        stage.scene.waits_for_child(parent, child.pid);
        stage.scene.lock(child, target(child, second));
        stage.scene.exit(child);
        stage.scene.unlock(parent, target(parent, first));
        std::swap(first, second);
    }
    const Outcome outcome = stage.scene.play();
    ASSERT_EQ(outcome.count("lock_order_inversion"), 1u);
    EXPECT_EQ(outcome.find("lock_order_inversion")->certainty, Certainty::likely);
}

TEST(LockOrder, RangesOfOneFile) {
    for (const std::uint64_t start : {100u, 5u}) {
        Stage stage;
        Target low = target(stage.one, 1, Mode::exclusive, Family::posix), high = low;
        low.len = high.len = 10;
        high.start = 100;
        stage.scene.lock(stage.one, low);
        stage.scene.lock(stage.one, high);
        stage.scene.unlock(stage.one, low);
        stage.scene.unlock(stage.one, high);
        low.description = high.description = 77;
        if (start == 100) {
            stage.scene.lock(stage.two, high);
            stage.scene.lock(stage.two, low);
        } else {  // upwards again
            stage.scene.lock(stage.two, low);
            stage.scene.lock(stage.two, high);
        }
        EXPECT_EQ(stage.inversions(), start == 100 ? 1u : 0u);
    }
}

TEST(LockOrder, DeadlockThatHappenedIsNotToldAgain) {
    Stage stage;
    stage.scene.lock(stage.one, target(stage.one, 1));
    stage.scene.lock(stage.two, target(stage.two, 2));
    stage.scene.request(stage.one, target(stage.one, 2));
    stage.scene.request(stage.two, target(stage.two, 1));
    const Outcome outcome = stage.scene.play();
    EXPECT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.count("lock_order_inversion"), 0u);
}

TEST(LockOrder, ADeadlockOnOtherBytesOfTheFileHidesNone) {
    for (const bool alone : {true, false}) {
        Stage stage;
        const auto byte = [&](const Actor &who, std::uint64_t start) {
            Target made = target(who, 1, Mode::exclusive, Family::ofd);
            made.start = start;
            made.len = 1;
            return made;
        };
        stage.scene.lock(stage.one, byte(stage.one, 0));
        stage.scene.lock(stage.two, byte(stage.two, 1));
        stage.scene.request(stage.one, byte(stage.one, 1));
        stage.scene.request(stage.two, byte(stage.two, 0));
        const Actor three = stage.scene.process(103, "z"), four = stage.scene.process(104, "z");
        for (const auto &[who, first, second] : {std::tuple{three, 10u, 11u}, std::tuple{four, 11u, 10u}}) {
            if (alone) break;  // that deadlock alone
            stage.scene.lock(who, byte(who, first));
            stage.scene.lock(who, byte(who, second));
            stage.scene.unlock(who, byte(who, first));
            stage.scene.unlock(who, byte(who, second));
        }
        const Outcome outcome = stage.scene.play();
        ASSERT_EQ(outcome.count("deadlock"), 1u);
        EXPECT_EQ(outcome.find("deadlock")->participants[0].wanted.start, 1u);
        EXPECT_EQ(outcome.find("deadlock")->participants[0].wanted.len, 1u);
        ASSERT_EQ(outcome.count("lock_order_inversion"), alone ? 0u : 1u);
        if (alone) continue;
        const Finding &found = *outcome.find("lock_order_inversion");
        EXPECT_NE(found.summary.find("103 held /tmp/1 (byte 10) when it asked for /tmp/1 (byte 11)"), std::string::npos)
            << found.summary;
        ASSERT_EQ(found.participants[0].held.size(), 1u);
        EXPECT_EQ(found.participants[0].held[0].start, 10u);
        EXPECT_EQ(found.participants[0].wanted.start, 11u);
    }
}

// What starts and joins threads is not recorded.
TEST(LockOrder, OfThreadsOfOneProcessItSaysThatTheirOrderIsNotKnown) {
    for (const bool threads : {true, false}) {
        Stage stage;
        const Actor other = threads ? stage.scene.thread(stage.one, 999) : stage.two;
        stage.nest(stage.one, {1, 2});
        stage.nest(other, {2, 1});
        const Outcome outcome = stage.scene.play();
        ASSERT_EQ(outcome.count("lock_order_inversion"), 1u);
        const std::string &summary = outcome.find("lock_order_inversion")->summary;
        EXPECT_NE(summary.find("Nothing that is recorded keeps these"), std::string::npos) << summary;
        EXPECT_EQ(summary.find("was joined") != std::string::npos, threads) << summary;
    }
}

TEST(UpgradeDeadlock, TwoSharedHoldersThatUpgradeAreFoundThoughTheyDidNotMeet) {
    struct Case {
        const char *what;
        Family family;
        bool gate, blocking;
        std::size_t expected;
    };
    const Case cases[] = {
        {"OFD", Family::ofd, false, true, 1},
        {"POSIX", Family::posix, false, true, 1},
        {"flock gives the old lock up first", Family::flock, false, true, 0},
        {"behind a gate", Family::ofd, true, true, 0},
        {"a try that is given up", Family::posix, false, false, 0},
    };
    for (const Case &one : cases) {
        Stage stage;
        for (const Actor &who : {stage.one, stage.two}) {
            if (one.gate) stage.scene.lock(who, target(who, 2));
            stage.scene.lock(who, target(who, 1, Mode::shared, one.family));
            Target upgrade = target(who, 1, Mode::exclusive, one.family);
            upgrade.blocking = one.blocking;
            stage.scene.lock(who, upgrade);
            stage.scene.unlock(who, upgrade);
            if (one.gate) stage.scene.unlock(who, target(who, 2));
        }
        EXPECT_EQ(stage.scene.play().count("upgrade_deadlock"), one.expected) << one.what;
    }
    Stage stage;  // one thread alone
    for (int i = 0; i < 2; ++i) {
        stage.scene.lock(stage.one, target(stage.one, 1, Mode::shared, Family::ofd));
        stage.scene.lock(stage.one, target(stage.one, 1, Mode::exclusive, Family::ofd));
    }
    EXPECT_EQ(stage.scene.play().count("upgrade_deadlock"), 0u);
}

// Random nesting by random processes: pairs that a naive comparison of all requests finds, and no circle without.
TEST(LockOrder, RandomisedAgreesWithANaiveSearchForPairs) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 engine(seed);
    struct Naive {
        std::int32_t pid;
        std::vector<std::uint32_t> held;
        std::uint32_t wanted;
    };
    for (int run = 0; run < 300; ++run) {
        Stage stage;
        const bool ordered = run % 3 == 0;
        std::vector<Naive> asked;
        for (int step = 0; step < 12; ++step) {
            const Actor &who = engine() % 2 == 0 ? stage.one : stage.two;
            std::set<std::uint32_t> chosen;
            while (chosen.size() < 1 + engine() % 3) chosen.insert(1 + static_cast<std::uint32_t>(engine() % 4));
            std::vector<std::uint32_t> files(chosen.begin(), chosen.end());
            if (!ordered) std::shuffle(files.begin(), files.end(), engine);
            for (std::size_t i = 1; i < files.size(); ++i)
                asked.push_back({who.pid, {files.begin(), files.begin() + static_cast<std::ptrdiff_t>(i)}, files[i]});
            stage.nest(who, files);
        }
        std::set<std::set<std::string>> expected, found;
        for (const Naive &a : asked) {
            for (const Naive &b : asked) {
                if (a.pid == b.pid) continue;
                bool disjoint = true, a_in_b = false, b_in_a = false;
                for (const std::uint32_t file : a.held) {
                    disjoint = disjoint && std::count(b.held.begin(), b.held.end(), file) == 0;
                    b_in_a = b_in_a || file == b.wanted;
                }
                for (const std::uint32_t file : b.held) a_in_b = a_in_b || file == a.wanted;
                if (disjoint && a_in_b && b_in_a)
                    expected.insert({"flock:fe:01:" + std::to_string(1000 + a.wanted),
                                     "flock:fe:01:" + std::to_string(1000 + b.wanted)});
            }
        }
        const Outcome outcome = stage.scene.play();
        for (const Finding &finding : outcome.report.findings)
            if (finding.kind == "lock_order_inversion") found.emplace(finding.locks.begin(), finding.locks.end());
        EXPECT_EQ(found, expected) << "seed " << seed << " run " << run;
    }
}

}  // namespace
}  // namespace planloop::analysis
