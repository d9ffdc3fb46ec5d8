#include "analysis/ownership.h"

#include <gtest/gtest.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>

#include "tests/support/ownership_scene.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::holder_pids;
using test::kSigkill;
using test::last_reason;
using test::Outcome;
using test::Scene;
using test::scene_with_files;
using test::Target;
using wire::Family;
using wire::Mode;

TEST(Ownership, UnlockEndsTheHoldAndMeasuresIt) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "flock");
    scene.at(10).lock(one, {.description = 1});
    scene.at(511).unlock(one, {.description = 1});
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 1u);
    EXPECT_EQ(released[0]->reason, "unlock");
    EXPECT_EQ(released[0]->hold_ns, 500'000);
    EXPECT_EQ(released[0]->lock, "flock:fe:01:1001");
    EXPECT_EQ(released[0]->lock_entry_id, outcome.of(EventKind::lock_acquired)[0]->lock_entry_id);
    EXPECT_TRUE(outcome.report.held.empty());
    EXPECT_EQ(outcome.report.events, 3u);
    ASSERT_EQ(outcome.report.locks.size(), 1u);
    EXPECT_EQ(outcome.report.locks[0].acquisitions, 1u);
    EXPECT_EQ(outcome.report.locks[0].contended, 0u);
}

TEST(Ownership, WaysOfLettingGoHaveTheirReasons) {
    struct Case {
        const char *reason;
        void (*let_go)(Scene &, const Actor &);
    };
    const Case cases[] = {
        {"close", [](Scene &s, const Actor &a) { s.close(a, 3, 1); }},
        {"close", [](Scene &s, const Actor &a) { s.close(a, 3); }},
        {"close", [](Scene &s, const Actor &a) { s.close(a, 3, 1, wire::CloseCause::replaced); }},
        {"exec", [](Scene &s, const Actor &a) { s.close(a, 3, 1, wire::CloseCause::exec); }},
        {"exit", [](Scene &s, const Actor &a) { s.exit(a); }},
        {"killed", [](Scene &s, const Actor &a) { s.ended(a.pid, kSigkill); }},
        {"exit", [](Scene &s, const Actor &a) { s.ended(a.pid, 3 << 8); }},
        {"lost",
         [](Scene &s, const Actor &a) {  // a failed conversion
             s.failed(s.request(a, {.description = 1, .mode = Mode::shared, .blocking = false}), EAGAIN);
         }},
    };
    for (const Case &one : cases) {
        Scene scene = scene_with_files();
        const Actor actor = scene.process(101, "x");
        scene.lock(actor, {.description = 1});
        one.let_go(scene, actor);
        const Outcome outcome = scene.play();
        EXPECT_EQ(last_reason(outcome), one.reason);
        EXPECT_TRUE(outcome.report.held.empty()) << one.reason;
    }
}

TEST(Ownership, DuplicateKeepsFlockUntilTheLastDescriptorGoes) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    scene.lock(one, {.description = 1});
    scene.dup(one, 3, 7);
    scene.close(one, 3, 1);
    Outcome outcome = scene.play();
    EXPECT_EQ(outcome.report.held.size(), 1u);
    scene.close(one, 7, 1);
    outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    EXPECT_EQ(last_reason(outcome), "close");
}

TEST(Ownership, ForkedChildHoldsOnAfterTheTakerIsKilled) {
    Scene scene = scene_with_files();
    const Actor taker = scene.process(101, "flock");
    scene.lock(taker, {.description = 1});
    scene.fork_silently(taker, 102);
    scene.ended(101, kSigkill);
    Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(holder_pids(outcome.report.held[0]), std::vector<std::int32_t>{102});
    EXPECT_EQ(outcome.report.held[0].acquired_by.pid, 101);
    EXPECT_EQ(outcome.report.held[0].pid, 102);
    EXPECT_EQ(outcome.count("killed_while_holding"), 1u);
    scene.at(5'000).ended(102, 0);
    outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    EXPECT_EQ(last_reason(outcome), "exit");
}

TEST(Ownership, UnlockByASharerReleasesForAll) {
    Scene scene = scene_with_files();
    const Actor parent = scene.process(101, "x");
    scene.lock(parent, {.description = 1});
    const Actor child = scene.fork(parent, 102, "x");
    scene.unlock(child, {.description = 1});
    const Outcome outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->pid, 102);
}

// ( flock 9; work ) 9>f
TEST(Ownership, SubshellHoldsWhatFlockTookOnItsDescriptor) {
    Scene scene = scene_with_files();
    const Actor flock = scene.process(202, "flock");
    const Target nine{.fd = 9, .description = 1};
    scene.lock(flock, nine);
    scene.sharer(flock, nine, 201, 9);
    scene.exit(flock);
    Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(holder_pids(outcome.report.held[0]), std::vector<std::int32_t>{201});
    EXPECT_EQ(outcome.report.held[0].acquired_by.process, "flock");
    const Actor shell = scene.process(201, "bash");
    scene.at(9'000).close(shell, 9, 1);
    outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 1u);
    EXPECT_EQ(released[0]->pid, 201);
    EXPECT_EQ(released[0]->reason, "close");
}

TEST(Ownership, ASupervisorsWordDoesNotReplaceWhatAForkTold) {
    Scene scene = scene_with_files();
    const Actor parent = scene.process(101, "x");
    scene.lock(parent, {.fd = 3, .description = 1, .mode = Mode::shared});
    const Actor child = scene.fork(parent, 102, "x");
    scene.lock(parent, {.fd = 4, .description = 2, .mode = Mode::shared});
    const Actor younger = scene.fork(parent, 103, "x");
    scene.close(younger, 3, 1);
    scene.exit(parent);
    scene.sharer(Actor{}, {.fd = -1, .description = 2}, 102, 3);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 2u);
    EXPECT_EQ(holder_pids(outcome.report.held[0]), std::vector<std::int32_t>{child.pid});
    EXPECT_EQ(holder_pids(outcome.report.held[1]), std::vector<std::int32_t>{younger.pid});
}

// A POSIX lock gives the description of its descriptor a number, and nobody knows that a child gave it another one.
TEST(Ownership, ASupervisorsWordTellsWhoseADescriptorIsThatWasUsedUnderAnotherNumber) {
    Scene scene = scene_with_files();
    const Target own{.fd = 3, .description = 1, .family = wire::Family::posix, .len = 10};
    const Actor parent = scene.process(101, "x");
    scene.lock(parent, own);
    const Actor child = scene.process(102, "x");
    scene.lock(child, {.fd = 33, .description = 2});
    scene.sharer(child, {.fd = 33, .description = 2}, 101, 33);
    scene.sharer(Actor{}, {.fd = -1, .description = 2}, 101, 3);
    Target other = own;
    other.fd = 33;
    other.start = 20;
    scene.lock(parent, other);
    scene.exit(child);
    const Outcome outcome = scene.play();
    const auto flock = std::find_if(outcome.report.held.begin(), outcome.report.held.end(),
                                    [](const HeldLock &row) { return row.lock.starts_with("flock"); });
    ASSERT_NE(flock, outcome.report.held.end());
    EXPECT_EQ(holder_pids(*flock), std::vector<std::int32_t>{parent.pid});
}

// exec 9>f; flock 9; flock -u 9: the second flock(1) has another number for the same description.
TEST(Ownership, InheritedDescriptorUnderANewNumberIsTheSameDescription) {
    Scene scene = scene_with_files();
    const Actor shell = scene.process(201, "bash");
    const Actor first = scene.fork(shell, 202, "flock");
    scene.lock(first, {.fd = 9, .description = 1});
    scene.sharer(first, {.fd = 9, .description = 1}, 201, 9);
    scene.exit(first);
    scene.fork_silently(shell, 203);
    const Actor second = scene.process(203, "flock", shell);
    scene.unlock(second, {.fd = 9, .description = 2});
    const Outcome outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    ASSERT_EQ(outcome.of(EventKind::lock_released).size(), 1u);
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->pid, 203);
    EXPECT_EQ(outcome.count("unlock_without_lock"), 0u);
}

TEST(Ownership, ExecKeepsDescriptorsThatStayOpen) {
    Scene scene = scene_with_files();
    const Actor before = scene.process(101, "bash");
    scene.lock(before, {.fd = 9, .description = 1});
    const Actor after = scene.exec(before, "work");
    Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].holders[0].process, "work");
    EXPECT_EQ(outcome.report.processes, 1u);
    EXPECT_EQ(outcome.report.threads, 1u);
    scene.unlock(after, {.fd = 9, .description = 2});
    outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
}

TEST(Ownership, AChildForkedBeforeTheLockDoesNotShareIt) {
    Scene scene = scene_with_files();
    const Actor parent = scene.process(101, "x");
    const Actor child = scene.fork(parent, 102, "x");
    scene.lock(parent, {.description = 1});
    scene.lock(child, {.file = 2, .description = 2});
    scene.close(parent, 3, 1);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].path, "/tmp/b");
}

TEST(Ownership, PosixLockBelongsToTheProcessAndGoesWithAnyCloseOfTheFile) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "sqlite3");
    scene.lock(one, {.description = 1, .family = Family::posix, .start = 0, .len = 10});
    scene.lock(one, {.description = 1, .family = Family::posix, .start = 20, .len = 10});
    scene.fork_silently(one, 102);
    scene.close(one, 8, 1);  // another descriptor of the same file
    const Outcome outcome = scene.play();
    EXPECT_TRUE(outcome.report.held.empty());
    EXPECT_EQ(outcome.of(EventKind::lock_released).size(), 2u);
    EXPECT_EQ(last_reason(outcome), "close");
}

TEST(Ownership, PosixLockSurvivesExecAndIsNotInherited) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    scene.lock(one, {.description = 1, .family = Family::posix});
    const Actor child = scene.fork(one, 102, "x");
    const Actor after = scene.exec(one, "y");
    Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(holder_pids(outcome.report.held[0]), std::vector<std::int32_t>{101});
    scene.close(child, 3, 1);
    EXPECT_EQ(scene.play().report.held.size(), 1u);
    scene.unlock(after, {.description = 1, .family = Family::posix});
    EXPECT_TRUE(scene.play().report.held.empty());
}

TEST(Ownership, HardLinksAreOneFileAndAnotherGenerationIsAnother) {
    Scene scene = scene_with_files();
    scene.file(20, "/tmp/link", 1001);
    scene.file(21, "/tmp/a", 1001, 8);
    const Actor one = scene.process(101, "x");
    scene.lock(one, {.description = 1, .family = Family::posix});
    scene.close(one, 5, 20);
    scene.lock(one, {.file = 21, .fd = 6, .description = 3});
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].lock, "flock:fe:01:1001#2");
}

TEST(Ownership, FlockConversionDropsTheOldLockWhenItBegins) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Actor two = scene.process(102, "y");
    scene.lock(one, {.description = 1, .mode = Mode::shared});
    const std::uint64_t other = scene.request(two, {.description = 2});
    const std::uint64_t upgrade = scene.request(one, {.description = 1});
    scene.acquired(other);
    scene.unlock(two, {.description = 2});
    scene.acquired(upgrade);
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 2u);
    EXPECT_EQ(released[0]->reason, "converted");
    EXPECT_EQ(released[0]->certainty, EndCertainty::exact);
    EXPECT_EQ(released[1]->pid, 102);
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].mode, Mode::exclusive);
    EXPECT_EQ(outcome.count("deadlock"), 0u);
}

TEST(Ownership, OfdUpgradeThatFailsKeepsTheOldLock) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    scene.lock(one, {.description = 1, .family = Family::ofd, .mode = Mode::shared});
    scene.failed(scene.request(one, {.description = 1, .family = Family::ofd, .blocking = false}), EAGAIN);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].mode, Mode::shared);
}

TEST(Ownership, PartialUnlockKeepsTheEntryUntilItsLastPartGoes) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Target all{.description = 1, .family = Family::posix, .start = 0, .len = 30};
    Target middle = all, left = all, right = all;
    middle.start = 10;
    left.len = middle.len = right.len = 10;
    right.start = 20;
    scene.lock(one, all);
    scene.unlock(one, middle);
    scene.unlock(one, left);
    Outcome outcome = scene.play();
    EXPECT_EQ(outcome.of(EventKind::lock_released).size(), 0u);
    EXPECT_EQ(outcome.report.held.size(), 1u);
    scene.unlock(one, right);
    outcome = scene.play();
    EXPECT_EQ(outcome.of(EventKind::lock_released).size(), 1u);
    EXPECT_TRUE(outcome.report.held.empty());
}

TEST(Ownership, PosixAndOfdLocksExcludeEachOtherAndFlockNeither) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Actor two = scene.process(102, "y");
    const Actor three = scene.process(103, "z");
    scene.lock(one, {.description = 1, .family = Family::posix});
    scene.lock(two, {.description = 2, .family = Family::flock});
    scene.request(three, {.description = 3, .family = Family::ofd});
    const Outcome outcome = scene.at(1'000).play();
    ASSERT_EQ(outcome.report.waiting.size(), 1u);
    ASSERT_EQ(outcome.report.waiting[0].blocked_by.size(), 1u);
    EXPECT_EQ(outcome.report.waiting[0].blocked_by[0].pid, 101);
    EXPECT_EQ(outcome.report.held.size(), 2u);
}

TEST(Ownership, ReusedDescriptorNumberMeansAnUnseenClose) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    scene.lock(one, {.description = 1});
    scene.lock(one, {.file = 2, .description = 2});
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].path, "/tmp/b");
    EXPECT_EQ(last_reason(outcome), "close");
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->certainty, EndCertainty::approximate);
}

TEST(Ownership, UnlockOfNothingIsToldAndIsNoRelease) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    scene.unlock(one, {.description = 1});
    scene.unlock(one, {.description = 1});
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.count("unlock_without_lock"), 1u);
    EXPECT_EQ(outcome.report.events, 0u);
}

TEST(Ownership, RecursiveMutexIsReleasedOnceForEachLock) {
    Scene scene;
    FileInfo mutex;
    mutex.lock_id = "mutex:app:queue";
    scene.source.files[1] = mutex;
    const Actor one = scene.process(101, "x");
    const Target target{.fd = -1, .family = Family::mutex};
    scene.lock(one, target);
    scene.lock(one, target);
    scene.unlock(one, target);
    Outcome outcome = scene.play();
    EXPECT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].lock, "mutex:app:queue");
    scene.unlock(one, target);
    EXPECT_TRUE(scene.play().report.held.empty());
}

// planloop.jsonl names a process anew and numbers its threads by itself. Whichever is heard of first.
TEST(Ownership, ThreadThatWritesToTheLogItselfIsTheOneThatTheSpoolKnows) {
    for (const bool log_first : {false, true}) {
        Scene scene = scene_with_files();
        FileInfo session;
        session.lock_id = "session";
        scene.source.files[9] = session;
        const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
        Actor log[2] = {{901, 1'901, 101, 101}, {902, 1'902, 102, 102}};
        for (const Actor &who : log) {
            ProcessInfo &info = scene.source.processes[who.image];
            info.pid = who.pid;
            info.name = "worker";
            info.hearsay = true;
        }
        const Target in_log{.file = 9, .fd = -1, .family = Family::named_mutex};
        if (!log_first) scene.lock(one, {.file = 2, .fd = 4, .description = 2});
        scene.lock(log[0], in_log);
        scene.lock(two, {.description = 1});
        scene.request(one, {.description = 3});
        EXPECT_EQ(scene.play().count("deadlock"), 0U);
        scene.request(log[1], in_log);
        const Outcome outcome = scene.play();
        ASSERT_EQ(outcome.count("deadlock"), 1U);
        const Finding &found = *outcome.find("deadlock");
        EXPECT_EQ(found.certainty, Certainty::confirmed) << found.summary;
        EXPECT_EQ(found.participants.size(), 2U);
        EXPECT_EQ(outcome.report.threads, 2U);
    }
}

// A program that exec made may write to the log before it has cause to write to the spool.
TEST(Ownership, StartRecordThatComesLateEndsNoCallOfTheNewImage) {
    Scene scene = scene_with_files();
    const Actor holder = scene.process(101, "x"), before = scene.process(102, "flock");
    scene.lock(holder, {.description = 1});
    scene.lock(before, {.file = 2, .fd = 4, .description = 2});
    scene.event(before, EventKind::process_exec);
    Actor log{902, 1'902, 102, 102};
    ProcessInfo &info = scene.source.processes[log.image];
    info.pid = 102;
    info.hearsay = true;
    scene.request(log, {.fd = 5, .description = 3});
    const Actor after{77, 1'077, 102, 102};
    scene.source.processes[after.image].pid = 102;
    scene.source.processes[after.image].replaced_by_exec = true;
    scene.event(after, EventKind::process_started);
    EXPECT_EQ(scene.play().report.waiting.size(), 1U);
}

}  // namespace
}  // namespace planloop::analysis
