#include "analysis/critical_path.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Scene;
using test::Target;

constexpr std::int64_t kMs = 1'000'000;

Target on(std::uint32_t description) {
    Target target;
    target.description = description;
    return target;
}

TEST(CriticalPath, LeadsFromTheLastExitToWhoHeldTheLock) {
    Scene scene;
    scene.file(1, "/tmp/lock", 10);
    const Actor a = scene.at(1'000).process(101, "a");
    const Actor b = scene.at(2'000).process(102, "b");
    scene.at(10'000).lock(a, on(1));
    const auto waits = scene.at(30'000).request(b, on(2));
    scene.at(90'000).unlock(a, on(1));
    scene.at(91'000).acquired(waits);
    scene.at(95'000).exit(a);
    scene.at(120'000).exit(b);
    const CriticalPath path = scene.play().report.critical_path;
    ASSERT_EQ(path.segments.size(), 3U);
    EXPECT_EQ(path.segments[0].kind, PathSegment::Kind::ran);
    EXPECT_EQ(path.segments[0].pid, 101);
    EXPECT_EQ(path.segments[1].kind, PathSegment::Kind::held);
    EXPECT_EQ(path.segments[1].pid, 101);
    EXPECT_EQ(path.segments[1].path, "/tmp/lock");
    EXPECT_EQ(path.segments[1].sooner_ns, 61 * kMs);
    EXPECT_EQ(path.segments[2].kind, PathSegment::Kind::ran);
    EXPECT_EQ(path.segments[2].pid, 102);
    EXPECT_EQ(path.segments[2].from_ns, path.segments[1].to_ns);
    EXPECT_EQ(path.total_ns, 119 * kMs);
    EXPECT_EQ(path.waited_ns, 61 * kMs);
}

TEST(CriticalPath, WaitOfSomebodyWhoEndedEarlierIsNotOnIt) {
    Scene scene;
    scene.file(1, "/tmp/lock", 10);
    const Actor a = scene.at(1'000).process(101, "a");
    const Actor b = scene.at(2'000).process(102, "b");
    scene.at(10'000).lock(a, on(1));
    const auto waits = scene.at(30'000).request(b, on(2));
    scene.at(90'000).unlock(a, on(1));
    scene.at(91'000).acquired(waits);
    scene.at(95'000).exit(b);
    scene.at(120'000).exit(a);
    const CriticalPath path = scene.play().report.critical_path;
    EXPECT_EQ(path.waited_ns, 0);
    ASSERT_EQ(path.segments.size(), 1U);
    EXPECT_EQ(path.segments[0].pid, 101);
}

TEST(CriticalPath, GoesThroughForksAndWaitsForChildren) {
    Scene scene;
    scene.file(1, "/tmp/lock", 10);
    const Actor parent = scene.at(1'000).process(101, "parent");
    scene.at(2'000).lock(parent, on(1));
    const Actor child = scene.at(10'000).fork(parent, 102, "child");
    scene.at(11'000).waits_for_child(parent, 102);
    scene.at(80'000).exit(child);
    Event &back = scene.at(81'000).event(parent, EventKind::child_wait_ended);
    back.other = 102;
    back.start = 102;
    scene.at(100'000).exit(parent);
    const CriticalPath path = scene.play().report.critical_path;
    ASSERT_EQ(path.segments.size(), 3U);
    EXPECT_EQ(path.segments[0].pid, 101);
    EXPECT_EQ(path.segments[1].pid, 102);
    EXPECT_EQ(path.segments[2].pid, 101);
    EXPECT_EQ(path.total_ns, 99 * kMs);
}

TEST(CriticalPath, WaitForNobodyThatWasTracedIsAStepOfItsOwn) {
    Scene scene;
    scene.file(1, "/tmp/lock", 10);
    const Actor a = scene.at(1'000).process(101, "a");
    const auto waits = scene.at(10'000).request(a, on(1));
    scene.at(70'000).acquired(waits);
    scene.at(80'000).exit(a);
    const CriticalPath path = scene.play().report.critical_path;
    ASSERT_EQ(path.segments.size(), 3U);
    EXPECT_EQ(path.segments[1].kind, PathSegment::Kind::waited);
    EXPECT_EQ(path.segments[1].sooner_ns, 60 * kMs);
}

TEST(CriticalPath, OfALongRunTheNewestStepsAndTheSumsAreKept) {
    Scene scene;
    scene.file(1, "/tmp/lock", 10);
    const Actor actors[] = {scene.process(101, "a"), scene.process(102, "b")};
    constexpr int kTurns = 2'000;
    scene.at(1'000).lock(actors[0], on(1));
    std::int64_t waited = 0;
    for (int turn = 0; turn < kTurns; ++turn) {
        const auto holder = static_cast<std::uint32_t>(turn % 2);
        const std::int64_t us = 2'000 + turn * 1'000;
        const auto waits = scene.at(us).request(actors[1 - holder], on(2 - holder));
        scene.at(us + 500).unlock(actors[holder], on(1 + holder));
        scene.at(us + 600).acquired(waits);
        waited += 600'000;
    }
    scene.exit(actors[1]);
    scene.exit(actors[0]);
    const CriticalPath path = scene.play().report.critical_path;
    EXPECT_EQ(path.segments.size(), CriticalPaths::kDetail);
    EXPECT_GT(path.earlier, static_cast<std::uint64_t>(kTurns) - CriticalPaths::kDetail);
    EXPECT_EQ(path.waited_ns, waited);
    for (std::size_t i = 1; i < path.segments.size(); ++i)
        EXPECT_EQ(path.segments[i].from_ns, path.segments[i - 1].to_ns) << "without gaps";
}

}  // namespace
}  // namespace planloop::analysis
