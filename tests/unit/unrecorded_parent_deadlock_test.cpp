// Deadlocks through a process that takes no lock itself and so is not recorded: a shell between who holds a lock and
// who waits for it. And through a child that has nothing of what its parent holds.
#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>
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
using test::target;

constexpr std::int32_t kShell = 500, kInnerShell = 501;

Actor below(Scene &scene, std::int32_t parent, std::int32_t pid, const std::string &name) {
    const Actor made = scene.process(pid, name);
    scene.source.processes[made.image].parent_pid = parent;
    return made;
}

// As a supervisor tells it.
void tell_parent(Scene &scene, std::int32_t pid, std::int32_t parent) {
    const std::uint32_t speaker = 900 + static_cast<std::uint32_t>(pid);
    ProcessInfo &info = scene.source.processes[speaker];
    info.pid = pid;
    info.parent_pid = parent;
    info.name = "sh";
    info.hearsay = true;
    Actor nobody;
    Event &made = scene.event(nobody, EventKind::sharer_seen);
    made.speaker = speaker;
    made.other = pid;
}

void reaps(Scene &scene, const Actor &parent, std::int32_t child) {
    scene.event(parent, EventKind::child_wait_ended).start = static_cast<std::uint64_t>(child);
}

void expect_likely(const Outcome &outcome, std::int32_t between) {
    ASSERT_EQ(outcome.count("self_deadlock"), 1u);
    const Finding &found = *outcome.find("self_deadlock");
    EXPECT_EQ(found.certainty, Certainty::likely);
    EXPECT_EQ(pids_of(found), std::set<std::int32_t>{102});
    EXPECT_TRUE(found.participants.front().holds.empty());
    EXPECT_EQ(found.participants.front().parent_holds, found.locks);
    ASSERT_EQ(found.also_held_by.size(), 1u);
    EXPECT_EQ(found.also_held_by.front().pid, 101);
    for (const std::string &words :
         {std::string(
              "flock 102 waits for /tmp/1, which python 101 (python --test) holds while it waits for flock 102"),
          std::to_string(between) + ", for which the holder of /tmp/1 waits", std::string("Let python 101 release")})
        EXPECT_NE(found.summary.find(words), std::string::npos) << found.summary;
}

TEST(UnrecordedParentDeadlock, IsLikelyWhicheverWaitBeganFirst) {
    for (const bool parent_first : {true, false}) {
        Scene scene;
        add_files(scene, 1);
        const Actor parent = scene.process(101, "python");
        scene.lock(parent, target(1, 1));
        if (parent_first) scene.waits_for_child(parent, kShell);
        scene.request(below(scene, kShell, 102, "flock"), target(1, 2));
        if (!parent_first) scene.waits_for_child(parent, kShell);
        expect_likely(scene.play(), kShell);
    }
}

TEST(UnrecordedParentDeadlock, IsFoundOverSeveralGenerationsOnceTheyAreTold) {
    for (const std::int32_t awaited : {kShell, -1}) {
        Scene scene;
        add_files(scene, 1);
        const Actor parent = scene.process(101, "python");
        scene.lock(parent, target(1, 1));
        scene.waits_for_child(parent, awaited);
        scene.request(below(scene, kInnerShell, 102, "flock"), target(1, 2));
        EXPECT_EQ(scene.play().count("self_deadlock"), 0u) << "nobody knows where it came from";
        tell_parent(scene, kInnerShell, kShell);
        tell_parent(scene, kShell, 101);
        expect_likely(scene.play(), kShell);
    }
}

// bash: 9>&- closes what the child inherited, and what it became by exec says nothing.
TEST(UnrecordedParentDeadlock, IsFoundBehindAForkThatBecameSomethingElse) {
    Scene scene;
    add_files(scene, 1);
    const Actor parent = scene.process(101, "python");
    scene.lock(parent, target(1, 1));
    const Actor shell = scene.fork(parent, kShell, "bash");
    scene.close(shell, target(1, 1).fd);
    scene.event(shell, EventKind::process_exec);
    scene.waits_for_child(parent, -1);
    scene.request(below(scene, kShell, 102, "flock"), target(1, 2));
    expect_likely(scene.play(), kShell);
}

TEST(UnrecordedParentDeadlock, RingsAreFoundWithTheBlockedOnly) {
    Scene scene;
    add_files(scene, 2);
    const Actor one = scene.process(101, "a"), two = scene.process(201, "b");
    scene.lock(one, target(1, 1));
    scene.lock(two, target(2, 2));
    scene.waits_for_child(one, kShell);
    scene.waits_for_child(two, kInnerShell);
    scene.request(below(scene, kShell, 102, "flock"), target(2, 3));
    scene.request(below(scene, kInnerShell, 202, "flock"), target(1, 4));
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    const Finding &found = *outcome.find("deadlock");
    EXPECT_EQ(found.certainty, Certainty::likely);
    EXPECT_EQ(pids_of(found), (std::set<std::int32_t>{102, 202}));
    EXPECT_NE(found.summary.find("a 101 holds /tmp/1 and waits for flock 102 to end, which waits for /tmp/2, which b "
                                 "201 holds"),
              std::string::npos)
        << found.summary;
}

TEST(UnrecordedParentDeadlock, IsNoneWhenTheHolderGoesOnOrSomebodyRecordedRuns) {
    enum class Twin { reaped, released, recorded, other_child };
    for (const Twin twin : {Twin::reaped, Twin::released, Twin::recorded, Twin::other_child}) {
        Scene scene;
        add_files(scene, 2);
        const Actor parent = scene.process(101, "python");
        scene.lock(parent, target(1, 1));
        if (twin == Twin::recorded) {
            const Actor shell = below(scene, 101, kShell, "perl");
            scene.lock(shell, target(2, 9));
        }
        scene.waits_for_child(parent, twin == Twin::other_child ? kInnerShell : kShell);
        if (twin == Twin::reaped) reaps(scene, parent, kShell);
        const std::uint64_t wait = scene.request(below(scene, kShell, 102, "flock"), target(1, 2));
        if (twin == Twin::released) {  // it was the shell's background job
            reaps(scene, parent, kShell);
            scene.unlock(parent, target(1, 1));
            scene.acquired(wait);
        }
        const Outcome outcome = scene.play();
        EXPECT_EQ(outcome.count("self_deadlock") + outcome.count("deadlock"), 0u) << static_cast<int>(twin);
    }
}

TEST(ParentDeadlock, SaysThatTheParentHoldsWhatTheChildDoesNotHave) {
    for (const wire::Family family : {wire::Family::flock, wire::Family::posix}) {
        Scene scene;
        add_files(scene, 1);
        const Actor parent = scene.process(101, "python");
        scene.lock(parent, target(1, 1, family));
        scene.waits_for_child(parent, 102);
        scene.request(below(scene, 101, 102, "x"), target(1, 2, family));
        const Outcome outcome = scene.play();
        ASSERT_EQ(outcome.count("self_deadlock"), 1u);
        const Finding &found = *outcome.find("self_deadlock");
        EXPECT_EQ(found.certainty, Certainty::confirmed);
        EXPECT_TRUE(found.participants.front().holds.empty());
        EXPECT_NE(found.summary.find("holds while it waits for x 102 to end"), std::string::npos) << found.summary;
        EXPECT_EQ(found.summary.find("already, through"), std::string::npos) << found.summary;
        EXPECT_EQ(found.summary.find("as flock 9") != std::string::npos, family == wire::Family::flock)
            << found.summary;
    }
}

// exec 9>A; flock 9; … | xargs -P4 sh -c 'flock -w 1 A …'
TEST(ParentDeadlock, OfSeveralThatShareTheLockIsOneWhicheverGivesUp) {
    Scene scene;
    add_files(scene, 1);
    const Actor shell = scene.process(101, "bash");
    scene.lock(shell, target(1, 1));
    std::vector<Actor> children;
    for (std::int32_t pid = 102; pid < 106; ++pid) children.push_back(scene.fork(shell, pid, "flock"));
    scene.waits_for_child(shell, -1);
    std::vector<std::uint64_t> waits;
    for (const Actor &child : children) {
        test::Target own = target(1, static_cast<std::uint32_t>(child.pid));
        own.fd = 3;
        waits.push_back(scene.request(child, own));
    }
    const std::int64_t from = scene.now_us();
    scene.at(from + 1'000'000);
    for (std::size_t i = 0; i < waits.size(); ++i) {
        const Outcome outcome = scene.play();
        ASSERT_EQ(outcome.count("deadlock") + outcome.count("self_deadlock"), 1u) << i;
        const Finding &found = outcome.report.findings.front();
        EXPECT_EQ(found.participants.size(), waits.size() - i) << "who is blocked";
        EXPECT_EQ(found.to_ns, -1);
        scene.failed(waits[i], EINTR);
        scene.exit(children[i]);
    }
    const Outcome outcome = scene.play();
    EXPECT_EQ(outcome.count("self_deadlock"), 0u);
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    const Finding &found = *outcome.find("deadlock");
    EXPECT_EQ(found.participants.size(), 4u);
    EXPECT_GE(found.to_ns - found.from_ns, 1'000'000'000);
    EXPECT_NE(found.summary.find("They all have the open file"), std::string::npos) << found.summary;
    EXPECT_EQ(found.summary.find("ascending"), std::string::npos) << found.summary;
}

}  // namespace
}  // namespace planloop::analysis
