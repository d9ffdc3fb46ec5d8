// What becomes of locks when those who hold them end.
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdint>
#include <string>

#include "analysis/ownership.h"
#include "tests/support/ownership_scene.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::kSigkill;
using test::last_reason;
using test::Outcome;
using test::Scene;
using test::scene_with_files;

// A supervisor tells of the child's death some milliseconds after its parent was told.
TEST(OwnershipAtTheEnd, AChildWhoseEndItsParentWasToldOfSharesNothingAfterThat) {
    struct Case {
        const char *what;
        std::int32_t parent;  // who is told
        std::int64_t slept_ns;
        std::size_t killed;
        const char *reason;
    };
    const Case cases[] = {
        {"its parent, which waited for it", 101, 400'000, 1, "close"},
        {"its parent, which asked later", 101, 900, 1, "close"},
        {"another process, whose child of that pid is another one", 102, 400'000, 1, "killed"},
    };
    for (const Case &one : cases) {
        Scene scene = scene_with_files();
        const Actor parent = scene.process(101, "sh");
        const Actor other = scene.process(102, "sh");
        scene.lock(parent, {.description = 1});
        scene.fork(parent, 103, "child");
        scene.at(900);
        Event &told = scene.event(one.parent == 101 ? parent : other, EventKind::child_wait_ended);
        told.start = 103;
        told.duration_ns = one.slept_ns;
        scene.at(1'000).close(parent, 3, 1);
        scene.at(4'000).ended(103, -1);
        const Outcome outcome = scene.play();
        const auto released = outcome.of(EventKind::lock_released);
        ASSERT_EQ(released.size(), 1u) << one.what;
        EXPECT_EQ(released[0]->reason, one.reason) << one.what;
        EXPECT_EQ(released[0]->t_ns, one.parent == 101 ? 1'000'000 : 4'000'000) << one.what;
        EXPECT_EQ(outcome.count("killed_while_holding"), one.killed) << one.what;
        EXPECT_EQ(outcome.count("inherited_lock"), 0u) << one.what;
    }
}

// Its own description had the lock until it died; the one that it shares with its parent got the lock then.
TEST(OwnershipAtTheEnd, KilledChildIsNotSaidToGoOnHoldingWhatItsParentTookNext) {
    Scene scene = scene_with_files();
    const Actor parent = scene.process(101, "x");
    scene.lock(parent, {.description = 1});
    scene.fork_silently(parent, 102);
    scene.unlock(parent, {.description = 1});
    const Actor child = scene.process(102, "x", parent);
    scene.lock(child, {.fd = 4, .description = 2});
    const std::uint64_t wait = scene.request(parent, {.description = 1});
    scene.at(1'000).acquired(wait);
    scene.at(2'000).ended(102, kSigkill);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("killed_while_holding"), 1u);
    for (const Finding &finding : outcome.report.findings) {
        if (finding.kind != "killed_while_holding") continue;
        EXPECT_EQ(finding.locks.size(), 1u);
        EXPECT_EQ(finding.summary.find("go on holding"), std::string::npos) << finding.summary;
    }
}

// The supervisor's word of a death comes after the kernel gave the lock to the next.
TEST(OwnershipAtTheEnd, DeathToldAfterTheNextAcquisitionEndsTheHoldThere) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Actor two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    const std::uint64_t wait = scene.request(two, {.description = 2});
    scene.at(1'000).acquired(wait);
    scene.at(1'900).unlock(two, {.description = 2});
    scene.at(2'000).ended(101, kSigkill);
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 2u);
    EXPECT_EQ(released[0]->reason, "killed");
    EXPECT_EQ(released[0]->t_ns, 1'000'000);
    EXPECT_EQ(released[0]->certainty, EndCertainty::exact);
    EXPECT_EQ(outcome.count("killed_while_holding"), 1u);
    for (std::size_t i = 1; i < outcome.lines.size(); ++i)
        EXPECT_LE(outcome.lines[i - 1].t_ns, outcome.lines[i].t_ns) << "line " << i;
}

TEST(OwnershipAtTheEnd, WhoeverSpeaksAfterLosingALockLostItAndWasNotKilled) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Actor two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    scene.lock(two, {.description = 2});  // the close in between was never seen
    scene.lock(one, {.file = 2, .fd = 4, .description = 3});
    scene.ended(101, kSigkill);
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    EXPECT_EQ(released[0]->reason, "lost");
    EXPECT_EQ(released[0]->certainty, EndCertainty::approximate);
}

TEST(OwnershipAtTheEnd, SilentEndIsAKillOnlyWhereExitWouldHaveBeenRecorded) {
    for (const bool traced : {true, false}) {
        Scene scene = scene_with_files();
        const Actor one = scene.process(101, "bash");
        scene.lock(one, {.description = 1});
        if (!traced) {
            scene.event(one, EventKind::not_traced);
            scene.event(one, EventKind::process_exec);
        }
        scene.ended(101, -1);
        const Outcome outcome = scene.play();
        EXPECT_EQ(last_reason(outcome), traced ? "killed" : "exit");
        EXPECT_EQ(outcome.count("killed_while_holding"), traced ? 1u : 0u);
    }
}

TEST(OwnershipAtTheEnd, WhoWasOnlyHeardOfAndIsGoneMayHaveEndedByExit) {
    for (const bool forked : {true, false}) {
        Scene scene = scene_with_files();
        const Actor taker = scene.process(101, "flock");
        scene.lock(taker, {.description = 1});
        if (forked)
            scene.fork_silently(taker, 102);
        else
            scene.sharer(taker, {.description = 1}, 102, 3);
        scene.exit(taker);
        AnalysisOptions options;
        options.alive = [](std::int32_t, std::uint64_t) { return false; };
        const Outcome outcome = scene.play(options);
        EXPECT_EQ(last_reason(outcome), forked ? "killed" : "exit");
        EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->certainty, EndCertainty::approximate);
        EXPECT_EQ(outcome.count("killed_while_holding"), forked ? 1u : 0u);
    }
}

TEST(OwnershipAtTheEnd, ASpawnedChildThatIsKilledBeforeItSpokeIsNamedAsItsParent) {
    Scene scene = scene_with_files();
    const Actor parent = scene.process(101, "sh");
    scene.lock(parent, {.description = 1});
    scene.sharer(parent, {.description = 1}, 102, 3);
    scene.at(1'000).exit(parent);
    scene.at(2'000).ended(102, kSigkill);
    const Outcome outcome = scene.play();
    const auto released = outcome.of(EventKind::lock_released);
    ASSERT_EQ(released.size(), 1u);
    EXPECT_EQ(released[0]->pid, 102);
    EXPECT_EQ(released[0]->process, "sh");
}

// It has closed nothing yet when its parent looks, and is reaped a moment later.
TEST(OwnershipAtTheEnd, WhoIsSeenToShareWhileItExitsHasExited) {
    Scene scene = scene_with_files();
    const Actor shell = scene.process(101, "sh");
    const Actor taker = scene.process(102, "flock", shell, 500);
    scene.lock(taker, {.fd = 9, .description = 1});
    scene.sharer(taker, {.fd = 9, .description = 1}, shell.pid, 9);
    scene.exit(taker);
    scene.sharer(shell, {.fd = 9, .description = 1}, taker.pid, 9);
    scene.source.events.back().speaker = taker.image;
    scene.ended(102, -1);
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.count("killed_while_holding"), 0u);
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(test::holder_pids(outcome.report.held[0]), std::vector<std::int32_t>{shell.pid});
}

TEST(OwnershipAtTheEnd, WhatARunningProcessHoldsLastsUntilNow) {
    const auto hold_total_ns = [](std::int64_t after_last_ns, bool runs) {
        Scene scene = scene_with_files();
        scene.lock(scene.process(101, "x"), {.description = 1});
        AnalysisOptions options;
        options.alive = [runs](std::int32_t, std::uint64_t) { return runs; };
        if (after_last_ns != 0) options.now_utc_ns = Scene(scene).play().report.to_utc_ns + after_last_ns;
        return scene.play(options).report.locks.at(0).hold.total;
    };
    EXPECT_EQ(hold_total_ns(1'000'000, true), hold_total_ns(0, true) + 1'000'000);
    EXPECT_EQ(hold_total_ns(1'000'000, false), hold_total_ns(0, false));
}

TEST(OwnershipAtTheEnd, DeathThatNobodySawIsApproximate) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x");
    const Actor two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    scene.at(700).lock(two, {.file = 2, .description = 2});
    AnalysisOptions options;
    options.alive = [](std::int32_t pid, std::uint64_t) { return pid == 102; };
    const Outcome outcome = scene.play(options);
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].pid, 102);
    EXPECT_EQ(last_reason(outcome), "killed");
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->certainty, EndCertainty::approximate);
}

TEST(OwnershipAtTheEnd, RecycledPidIsAnotherProcess) {
    Scene scene = scene_with_files();
    const Actor one = scene.process(101, "x", {}, 500);
    scene.lock(one, {.description = 1});
    const Actor two = scene.process(101, "y", {}, 900);
    scene.lock(two, {.file = 2, .description = 2});
    scene.ended(101, kSigkill, 500);  // late word about the first
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.report.processes, 2u);
    ASSERT_EQ(outcome.report.held.size(), 1u);
    EXPECT_EQ(outcome.report.held[0].process, "y");
    EXPECT_EQ(outcome.of(EventKind::lock_released)[0]->certainty, EndCertainty::approximate);
}

}  // namespace
}  // namespace planloop::analysis
