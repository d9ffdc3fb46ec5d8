// Detectors of locks that are used wrongly, each with its negative twin.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
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

Target target(Family family, Mode mode, std::uint32_t description, std::int32_t fd = 3, std::uint32_t file = 1) {
    Target made;
    made.file = file;
    made.fd = fd;
    made.description = description;
    made.family = family;
    made.mode = mode;
    return made;
}

bool says(const Finding &finding, const std::string &words) {
    return finding.summary.find(words) != std::string::npos;
}

struct Two {
    Scene scene;
    Actor one, two;
    Two() {
        scene.file(1, "/tmp/a", 1001);
        one = scene.process(101, "x");
        two = scene.process(102, "y");
    }
};

TEST(NonAtomicUpgrade, SomebodyInBetweenIsConfirmed) {
    Two set;
    const Target shared = target(Family::flock, Mode::shared, 1), upgrade = target(Family::flock, Mode::exclusive, 1);
    const Target other = target(Family::flock, Mode::exclusive, 2);
    set.scene.lock(set.one, shared);
    const std::uint64_t waiting = set.scene.request(set.two, other);
    const std::uint64_t upgrading = set.scene.request(set.one, upgrade);
    set.scene.acquired(waiting);
    set.scene.unlock(set.two, other);
    set.scene.acquired(upgrading);
    const Outcome outcome = set.scene.play();
    ASSERT_EQ(outcome.count("non_atomic_upgrade"), 1u);
    const Finding &finding = *outcome.find("non_atomic_upgrade");
    EXPECT_EQ(finding.certainty, Certainty::confirmed);
    EXPECT_EQ(finding.severity, Severity::warning);
    ASSERT_EQ(finding.participants.size(), 2u);
    EXPECT_EQ(finding.participants[0].pid, 101);
    EXPECT_EQ(finding.participants[1].pid, 102);
}

TEST(NonAtomicUpgrade, RefusedOneLosesTheSharedLockToo) {
    Two set;
    set.scene.lock(set.two, target(Family::flock, Mode::shared, 2));
    set.scene.lock(set.one, target(Family::flock, Mode::shared, 1));
    Target upgrade = target(Family::flock, Mode::exclusive, 1);
    upgrade.blocking = false;
    set.scene.failed(set.scene.request(set.one, upgrade), EAGAIN);
    const Outcome outcome = set.scene.play();
    ASSERT_EQ(outcome.count("non_atomic_upgrade"), 1u);
    EXPECT_TRUE(says(*outcome.find("non_atomic_upgrade"), "lost the shared lock"))
        << outcome.report.findings[0].summary;
}

TEST(NonAtomicUpgrade, IsPossibleWhenOthersTakeItExclusivelyAndSilentWhenNobodyDoes) {
    for (const bool others : {false, true}) {
        Two set;
        set.scene.lock(set.one, target(Family::flock, Mode::shared, 1));
        set.scene.lock(set.one, target(Family::flock, Mode::exclusive, 1));
        set.scene.unlock(set.one, target(Family::flock, Mode::none, 1));
        if (others) set.scene.lock(set.two, target(Family::flock, Mode::exclusive, 2));
        const Outcome outcome = set.scene.play();
        ASSERT_EQ(outcome.count("non_atomic_upgrade"), others ? 1u : 0u);
        if (!others) continue;
        EXPECT_EQ(outcome.find("non_atomic_upgrade")->certainty, Certainty::possible);
    }
}

TEST(NonAtomicUpgrade, SilentForRangeLocksWhichKeepTheOldOneMeanwhile) {
    for (const Family family : {Family::posix, Family::ofd}) {
        Two set;
        set.scene.lock(set.one, target(family, Mode::shared, 1));
        set.scene.lock(set.one, target(family, Mode::exclusive, 1));
        set.scene.unlock(set.one, target(family, Mode::none, 1));
        set.scene.lock(set.two, target(family, Mode::exclusive, 2));
        EXPECT_EQ(set.scene.play().count("non_atomic_upgrade"), 0u);
    }
}

TEST(LockLostOnClose, OfAnotherDescriptorIsNamed) {
    for (const Family family : {Family::posix, Family::posix_thread}) {
        Two set;
        set.scene.lock(set.one, target(family, Mode::exclusive, 1, 3));
        set.scene.close(set.one, 7, 1);
        const Outcome outcome = set.scene.play();
        ASSERT_EQ(outcome.count("lock_lost_on_close"), 1u);
        const Finding &finding = *outcome.find("lock_lost_on_close");
        EXPECT_TRUE(says(finding, "taken through descriptor 3")) << finding.summary;
        EXPECT_TRUE(says(finding, "closed descriptor 7")) << finding.summary;
        EXPECT_EQ(finding.participants.at(0).pid, 101);
    }
}

TEST(LockLostOnClose, SilentWhereTheCloseIsMeantOrReleasesNothing) {
    struct Case {
        const char *what;
        void (*play)(Two &);
    };
    const Case cases[] = {
        {"the descriptor it was taken through",
         [](Two &set) {
             set.scene.lock(set.one, target(Family::posix, Mode::exclusive, 1, 3));
             set.scene.close(set.one, 3, 1);
         }},
        {"after the unlock",
         [](Two &set) {
             set.scene.lock(set.one, target(Family::posix, Mode::exclusive, 1, 3));
             set.scene.unlock(set.one, target(Family::posix, Mode::none, 1, 3));
             set.scene.close(set.one, 7, 1);
         }},
        {"by another process",
         [](Two &set) {
             set.scene.lock(set.one, target(Family::posix, Mode::exclusive, 1, 3));
             set.scene.close(set.two, 7, 1);
         }},
        {"of all descriptors at once",
         [](Two &set) {
             set.scene.lock(set.one, target(Family::posix, Mode::exclusive, 1, 8));
             set.scene.close(set.one, 7, 1, wire::CloseCause::close_range);
         }},
        {"another family",
         [](Two &set) {
             set.scene.lock(set.one, target(Family::ofd, Mode::exclusive, 1, 3));
             set.scene.close(set.one, 7, 1);
         }},
    };
    for (const Case &one : cases) {
        Two set;
        one.play(set);
        EXPECT_EQ(set.scene.play().count("lock_lost_on_close"), 0u) << one.what;
    }
}

TEST(LockFileReplaced, WhileTheOldOneIsHeldMeansTwoHolders) {
    Two set;
    set.scene.file(2, "/tmp/a", 1002);
    set.scene.lock(set.one, target(Family::flock, Mode::exclusive, 1));
    set.scene.lock(set.two, target(Family::flock, Mode::exclusive, 2, 3, 2));
    const Outcome outcome = set.scene.play();
    ASSERT_EQ(outcome.count("lock_file_replaced"), 1u);
    const Finding &finding = *outcome.find("lock_file_replaced");
    EXPECT_EQ(finding.certainty, Certainty::confirmed);
    EXPECT_EQ(finding.locks.size(), 2u);
    ASSERT_EQ(finding.participants.size(), 2u);
    EXPECT_EQ(finding.participants[0].pid, 102);
    EXPECT_EQ(finding.participants[1].pid, 101);
}

TEST(LockFileReplaced, KnowsAnInodeThatIsUsedAgainByItsGeneration) {
    Two set;
    set.scene.file(2, "/tmp/a", 1001, 8);
    set.scene.lock(set.one, target(Family::flock, Mode::exclusive, 1));
    set.scene.lock(set.two, target(Family::flock, Mode::exclusive, 2, 3, 2));
    EXPECT_EQ(set.scene.play().count("lock_file_replaced"), 1u);
}

TEST(LockFileReplaced, WhileTheOldOneIsWaitedForEndsWithTwoHolders) {
    Two set;
    set.scene.file(2, "/tmp/a", 1002);
    const Actor third = set.scene.process(103, "z");
    const Target old = target(Family::flock, Mode::exclusive, 1);
    set.scene.lock(set.one, old);
    const std::uint64_t waiting = set.scene.request(set.two, target(Family::flock, Mode::exclusive, 2));
    set.scene.unlock(set.one, old);
    set.scene.lock(third, target(Family::flock, Mode::exclusive, 3, 3, 2));
    set.scene.acquired(waiting);
    const Outcome outcome = set.scene.play();
    ASSERT_EQ(outcome.count("lock_file_replaced"), 1u);
    EXPECT_EQ(outcome.find("lock_file_replaced")->certainty, Certainty::confirmed) << "in the end both held";
}

TEST(LockFileReplaced, SilentOnceTheOldOneIsGoneAndForOtherPaths) {
    Two set;
    set.scene.file(2, "/tmp/a", 1002);
    set.scene.file(3, "/tmp/b", 1003);
    set.scene.lock(set.one, target(Family::flock, Mode::exclusive, 1));
    set.scene.lock(set.two, target(Family::flock, Mode::exclusive, 3, 3, 3));
    set.scene.unlock(set.one, target(Family::flock, Mode::none, 1));
    set.scene.lock(set.two, target(Family::flock, Mode::exclusive, 2, 4, 2));
    EXPECT_EQ(set.scene.play().count("lock_file_replaced"), 0u);
}

TEST(InheritedLock, ThatAChildHoldsOnToIsFoundAndKeepsOthersWaiting) {
    Two set;
    set.scene.lock(set.one, target(Family::flock, Mode::exclusive, 1));
    const Actor child = set.scene.fork(set.one, 103, "job");
    set.scene.exit(set.one);
    set.scene.request(set.two, target(Family::flock, Mode::exclusive, 2));
    Outcome outcome = set.scene.play();
    ASSERT_EQ(outcome.count("inherited_lock"), 1u);
    Finding finding = *outcome.find("inherited_lock");
    EXPECT_EQ(finding.severity, Severity::warning);
    EXPECT_EQ(finding.to_ns, -1);
    ASSERT_EQ(finding.participants.size(), 1u);
    EXPECT_EQ(finding.participants[0].pid, 103);

    set.scene.exit(child);
    outcome = set.scene.play();
    ASSERT_EQ(outcome.count("inherited_lock"), 1u);
    EXPECT_GT(outcome.find("inherited_lock")->to_ns, outcome.find("inherited_lock")->from_ns);
}

TEST(InheritedLock, SilentForTheShellsIdiomAndWhenTheChildEndsFirst) {
    Two set;
    // ( flock 9; work ) 9>a: the lock is taken by a child that ends at once.
    set.scene.dup(set.one, 3, 9);
    Target nine = target(Family::flock, Mode::exclusive, 1, 9);
    set.scene.lock(set.one, target(Family::flock, Mode::shared, 1, 9));
    const Actor taker = set.scene.fork(set.one, 103, "flock");
    set.scene.lock(taker, nine);
    set.scene.exit(taker);
    const Actor work = set.scene.fork(set.one, 104, "work");
    set.scene.exit(work);
    set.scene.exit(set.one);
    EXPECT_EQ(set.scene.play().count("inherited_lock"), 0u);
}

TEST(LongWaitAndHold, AreToldFromTheirThresholdOn) {
    for (const bool open : {false, true}) {
        Two set;
        const Target first = target(Family::flock, Mode::exclusive, 1),
                     second = target(Family::flock, Mode::exclusive, 2);
        set.scene.lock(set.one, first);
        const std::uint64_t waiting = set.scene.request(set.two, second);
        set.scene.at(12'000'000);
        if (!open) set.scene.unlock(set.one, first);
        if (!open) set.scene.acquired(waiting);
        set.scene.process(104, "end");
        AnalysisOptions options;
        Outcome outcome = set.scene.play(options);
        ASSERT_EQ(outcome.count("long_wait"), 1u);
        ASSERT_EQ(outcome.count("long_hold"), 1u);
        EXPECT_EQ(outcome.find("long_wait")->participants.at(0).pid, 102);
        EXPECT_EQ(outcome.find("long_wait")->participants.at(0).waits_on, std::vector<std::int32_t>{101});
        EXPECT_EQ(outcome.find("long_hold")->participants.at(0).pid, 101);
        EXPECT_EQ(outcome.find("long_wait")->to_ns < 0, open);
        options.long_wait_ns = options.long_hold_ns = 13'000'000'000;
        outcome = set.scene.play(options);
        EXPECT_EQ(outcome.count("long_wait") + outcome.count("long_hold"), 0u);
    }
}

}  // namespace
}  // namespace planloop::analysis
