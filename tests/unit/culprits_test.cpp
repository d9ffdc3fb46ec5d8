#include "analysis/culprits.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <map>
#include <numeric>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Scene;
using test::Target;

constexpr std::int64_t kMs = 1'000'000;

Target on(std::uint32_t file, std::uint32_t description, wire::Mode mode = wire::Mode::exclusive) {
    Target target;
    target.file = file;
    target.fd = static_cast<std::int32_t>(2 + file);
    target.description = description;
    target.mode = mode;
    return target;
}

std::int64_t caused_by(const Report &report, std::int32_t pid) {
    for (const Culprit &culprit : report.blame.processes)
        if (culprit.pid == pid) return culprit.caused_ns;
    return 0;
}

std::int64_t sum(const std::vector<Culprit> &rows) {
    return std::accumulate(rows.begin(), rows.end(), std::int64_t{0},
                           [](std::int64_t total, const Culprit &row) { return total + row.caused_ns; });
}

void expect_sums(const Report &report) {
    const BlameTables &blame = report.blame;
    for (const auto *table : {&blame.processes, &blame.call_sites, &blame.operations})
        EXPECT_EQ(sum(*table) + blame.unknown_ns + blame.handover_ns, blame.waited_ns);
    std::int64_t of_locks = 0;
    for (const LockRow &row : report.locks) of_locks += row.waited_ns;
    EXPECT_EQ(of_locks, blame.waited_ns);
}

// Times in milliseconds.
struct Stage {
    Stage() {
        for (std::uint32_t file = 1; file <= 6; ++file) scene.file(file, "/tmp/" + std::to_string(file), 100 + file);
        a = scene.process(101, "a");
        b = scene.process(102, "b");
        c = scene.process(103, "c");
        d = scene.process(104, "d");
    }
    Scene &at(std::int64_t ms) { return scene.at(ms * 1'000); }

    Scene scene;
    Actor a, b, c, d;
};

TEST(Culprits, HolderThatWaitsItselfPassesThatPartOn) {
    Stage stage;
    stage.at(1).lock(stage.c, on(2, 30));
    stage.at(2).lock(stage.b, on(1, 20));
    const auto a = stage.at(100).request(stage.a, on(1, 10));
    const auto b = stage.at(120).request(stage.b, on(2, 21));
    stage.at(200).unlock(stage.c, on(2, 30));
    stage.at(200).acquired(b);
    stage.at(200).unlock(stage.b, on(1, 20));
    stage.at(200).acquired(a);
    const Report report = stage.scene.play().report;
    // A waits for B in [0, 100], B for C in [20, 100]: of A's wait, B is charged 20 and C 80; of B's own, C all 80.
    EXPECT_EQ(caused_by(report, 102), 20 * kMs);
    EXPECT_EQ(caused_by(report, 103), 160 * kMs);
    EXPECT_EQ(report.blame.waited_ns, 180 * kMs);
    EXPECT_EQ(report.blame.waits, 2U);
    for (const Culprit &row : report.blame.processes) EXPECT_EQ(row.waits, row.pid == 102 ? 1U : 2U);
    expect_sums(report);
}

TEST(Culprits, WaitCountsOnceForAProgramTwoProcessesOfWhichHadAPartInIt) {
    Stage stage;
    const Actor holder = stage.scene.process(201, "same"), last = stage.scene.process(202, "same");
    stage.at(1).lock(last, on(2, 30));
    stage.at(2).lock(holder, on(1, 20));
    const auto a = stage.at(100).request(stage.a, on(1, 10));
    const auto b = stage.at(120).request(holder, on(2, 21));
    stage.at(200).unlock(last, on(2, 30));
    stage.at(200).acquired(b);
    stage.at(200).unlock(holder, on(1, 20));
    stage.at(200).acquired(a);
    const BlameTables blame = stage.scene.play().report.blame;
    EXPECT_EQ(blame.waits, 2U);
    for (const auto *rows : {&blame.operations, &blame.call_sites}) {
        ASSERT_EQ(rows->size(), 1U);
        EXPECT_EQ(rows->front().waits, 2U);
        EXPECT_EQ(rows->front().caused_ns, 180 * kMs);
    }
}

TEST(Culprits, SharedHoldersAreChargedEqualParts) {
    Stage stage;
    stage.at(1).lock(stage.b, on(1, 20, wire::Mode::shared));
    stage.at(2).lock(stage.c, on(1, 30, wire::Mode::shared));
    const auto a = stage.at(100).request(stage.a, on(1, 10));
    stage.at(140).unlock(stage.b, on(1, 20));
    stage.at(200).unlock(stage.c, on(1, 30));
    stage.at(210).acquired(a);
    const Report report = stage.scene.play().report;
    EXPECT_EQ(caused_by(report, 102), 20 * kMs);
    EXPECT_EQ(caused_by(report, 103), 80 * kMs);
    EXPECT_EQ(report.blame.handover_ns, 10 * kMs);
    expect_sums(report);
}

TEST(Culprits, EachMemberOfACircleIsChargedByTheOneThatWaitsForIt) {
    Stage stage;
    stage.at(1).lock(stage.a, on(1, 10));
    stage.at(2).lock(stage.b, on(2, 20));
    stage.at(3).lock(stage.a, on(3, 11));
    const auto bystander = stage.at(50).request(stage.c, on(3, 30));
    const auto a = stage.at(100).request(stage.a, on(2, 12));
    const auto b = stage.at(100).request(stage.b, on(1, 21));
    stage.at(200).failed(a, EINTR);
    stage.at(200).unlock(stage.a, on(1, 10));
    stage.at(200).acquired(b);
    stage.at(210).unlock(stage.a, on(3, 11));
    stage.at(210).acquired(bystander);
    const Report report = stage.scene.play().report;
    // The bystander's wait runs into the circle by a, all of it.
    EXPECT_NEAR(static_cast<double>(caused_by(report, 101)), (160 + 100) * kMs, 0.01 * kMs);
    EXPECT_NEAR(static_cast<double>(caused_by(report, 102)), 100 * kMs, 0.01 * kMs);
    expect_sums(report);
}

TEST(Culprits, WaitForNobodyThatWasTracedIsUnknown) {
    Stage stage;
    const auto a = stage.at(100).request(stage.a, on(1, 10));
    stage.at(400).acquired(a);
    const Report report = stage.scene.play().report;
    EXPECT_EQ(report.blame.unknown_ns, 300 * kMs);
    EXPECT_EQ(report.blame.waited_ns, 300 * kMs);
    EXPECT_EQ(report.blame.waits, 1U);
    expect_sums(report);
}

TEST(Culprits, CallThatNobodyStoodInTheWayOfIsNoWait) {
    Stage stage;
    stage.at(1).lock(stage.a, on(1, 10));
    Target probe = on(1, 20);
    probe.blocking = false;
    stage.at(5).failed(stage.at(4).request(stage.b, probe), EAGAIN);
    const Report report = stage.scene.play().report;
    EXPECT_EQ(report.blame.waits, 0U);
    EXPECT_EQ(report.blame.waited_ns, 0);
}

TEST(Culprits, RepeatedTriesAreOneWaitUntilTheLastOfThem) {
    Stage stage;
    stage.at(1).lock(stage.a, on(1, 10));
    Target probe = on(1, 20);
    probe.blocking = false;
    for (int i = 0; i < 5; ++i) stage.at(10 + 10 * i).failed(stage.at(10 + 10 * i).request(stage.b, probe), EAGAIN);
    stage.at(500).unlock(stage.a, on(1, 10));
    stage.at(501).exit(stage.b);
    const Report report = stage.scene.play().report;
    EXPECT_EQ(report.blame.waits, 1U);
    EXPECT_NEAR(static_cast<double>(caused_by(report, 101)), 40 * kMs, 0.01 * kMs);
    expect_sums(report);
}

TEST(Culprits, HolderThatWaitsForItsBlockedChildPassesOnAsTheChildDoes) {
    Stage stage;
    stage.at(1).lock(stage.b, on(1, 20));
    stage.at(2).lock(stage.c, on(2, 30));
    const Actor child = stage.at(3).fork(stage.b, 201, "child");
    const auto waits = stage.at(100).request(child, on(2, 40));
    const auto a = stage.at(110).request(stage.a, on(1, 10));
    stage.at(130).waits_for_child(stage.b, 201);
    stage.at(200).unlock(stage.c, on(2, 30));
    stage.at(200).acquired(waits);
    stage.at(220).unlock(stage.b, on(1, 20));
    stage.at(220).acquired(a);
    const Report report = stage.scene.play().report;
    EXPECT_NEAR(static_cast<double>(caused_by(report, 103)), (100 + 70) * kMs, 0.01 * kMs);
    EXPECT_NEAR(static_cast<double>(caused_by(report, 102)), 40 * kMs, 0.01 * kMs);
    expect_sums(report);
}

TEST(Culprits, WhoHasTheLockOnceItsTakerIsGoneIsToBlame) {
    Stage stage;
    stage.at(1).lock(stage.b, on(1, 20));
    const Actor child = stage.at(2).fork(stage.b, 201, "heir");
    const auto a = stage.at(100).request(stage.a, on(1, 10));
    stage.at(130).exit(stage.b);
    stage.at(200).close(child, 3);
    stage.at(200).acquired(a);
    const Report report = stage.scene.play().report;
    EXPECT_EQ(caused_by(report, 102), 30 * kMs);
    EXPECT_NEAR(static_cast<double>(caused_by(report, 201)), 70 * kMs, 0.01 * kMs);
    expect_sums(report);
}

TEST(Culprits, OpenWaitsCountUpToTheEnd) {
    Stage stage;
    stage.at(1).lock(stage.b, on(1, 20));
    stage.at(100).request(stage.a, on(1, 10));
    stage.at(300).lock(stage.c, on(2, 30));
    const Report report = stage.scene.play().report;
    EXPECT_NEAR(static_cast<double>(caused_by(report, 102)), 200 * kMs, 0.01 * kMs);
    ASSERT_EQ(report.locks.front().queue.max, 1U);
    expect_sums(report);
}

TEST(Culprits, ChainsOfAnyLengthAndCirclesEndWithinTheBound) {
    Scene scene;
    std::vector<Actor> actors;
    constexpr std::uint32_t kRing = 1'000;
    for (std::uint32_t i = 0; i < kRing; ++i) {
        scene.file(i + 1, "/tmp/" + std::to_string(i), 100 + i);
        actors.push_back(scene.process(static_cast<std::int32_t>(1'000 + i), "p"));
        scene.lock(actors[i], on(i + 1, i + 1));
    }
    for (std::uint32_t i = 0; i < kRing; ++i) scene.request(actors[i], on((i + 1) % kRing + 1, kRing + 1 + i));
    expect_sums(scene.play().report);
}

TEST(Culprits, WhereItIsTooFarToWhoCouldEndItTheNextOneIsCharged) {
    Scene scene;
    std::vector<Actor> actors;
    constexpr std::uint32_t kLength = Culprits::kMostSteps + 50;  // waiters; the last of the chain runs
    for (std::uint32_t i = 0; i <= kLength; ++i) {
        scene.file(i + 1, "/tmp/" + std::to_string(i), 100 + i);
        actors.push_back(scene.process(static_cast<std::int32_t>(1'000 + i), "p"));
        scene.lock(actors[i], on(i + 1, i + 1));
    }
    for (std::uint32_t i = kLength; i-- > 0;) scene.request(actors[i], on(i + 2, kLength + 2 + i));
    const std::int64_t waiting_us = scene.now_us();
    scene.at(waiting_us + 1'000'000).lock(actors[kLength], on(kLength + 1, 9'999));
    const Report report = scene.play().report;
    for (std::uint32_t i = 1; i <= kLength; ++i) {
        const double seconds = static_cast<double>(caused_by(report, static_cast<std::int32_t>(1'000 + i))) / 1e9;
        const double expected = i == kLength ? Culprits::kMostSteps : i <= kLength - Culprits::kMostSteps ? 1 : 0;
        EXPECT_NEAR(seconds, expected, 0.1) << i;
    }
    expect_sums(report);
}

// The rule said once more, millisecond by millisecond, with all that was ever recorded at hand.
class Naive {
  public:
    struct Process {
        int waits_for = -1;  // lock
        bool exclusive = false;
        bool was_blocked = false;
        std::map<int, bool> holds;  // lock -> exclusive
    };

    explicit Naive(std::size_t count) : processes(count), caused(count) {}

    std::vector<std::size_t> blockers(std::size_t who) const {
        std::vector<std::size_t> found;
        const Process &waiter = processes[who];
        for (std::size_t i = 0; i < processes.size(); ++i) {
            const auto held = processes[i].holds.find(waiter.waits_for);
            if (i != who && held != processes[i].holds.end() && (held->second || waiter.exclusive)) found.push_back(i);
        }
        return found;
    }
    void tick() {
        for (std::size_t i = 0; i < processes.size(); ++i) {
            if (processes[i].waits_for < 0 || !processes[i].was_blocked) continue;
            waited += 1;
            if (blockers(i).empty()) {
                handover += 1;
                continue;
            }
            std::vector<double> parts(processes.size());
            std::uint32_t steps = 0;
            share({i}, 1.0, parts, steps);
            if (steps > Culprits::kMostSteps) {
                parts.assign(processes.size(), 0);
                const std::vector<std::size_t> in_the_way = blockers(i);
                for (const std::size_t one : in_the_way) parts[one] = 1.0 / static_cast<double>(in_the_way.size());
            }
            for (std::size_t one = 0; one < parts.size(); ++one) caused[one] += parts[one];
        }
    }

    std::vector<Process> processes;
    std::vector<double> caused;
    double waited = 0, handover = 0;

  private:
    // `chain`: who waits for whom, from the one whose wait it is. `parts`: of each process.
    void share(const std::vector<std::size_t> &chain, double part, std::vector<double> &parts,
               std::uint32_t &steps) const {
        const std::vector<std::size_t> in_the_way = blockers(chain.back());
        for (const std::size_t one : in_the_way) {
            if (++steps > Culprits::kMostSteps) return;
            const double its = part / static_cast<double>(in_the_way.size());
            const bool stopped = processes[one].waits_for >= 0 && !blockers(one).empty();
            const auto known = std::find(chain.begin(), chain.end(), one);
            if (!stopped) {
                parts[one] += its;
            } else if (known == chain.begin()) {
                parts[chain.size() > 1 ? chain[1] : one] += its;
            } else if (known != chain.end()) {
                parts[*known] += its;
            } else {
                std::vector<std::size_t> longer = chain;
                longer.push_back(one);
                share(longer, its, parts, steps);
            }
        }
    }
};

// Each of `processes` has so many threads; "process" in the naive model is a thread here.
void compare_with_naive(std::uint32_t seed, std::size_t processes, int locks, int steps, std::size_t threads_each = 1) {
    SCOPED_TRACE("seed " + std::to_string(seed) + ", " + std::to_string(threads_each) + " threads each");
    std::mt19937 random(seed);
    Scene scene;
    const std::size_t threads = processes * threads_each;
    Naive naive(threads);
    std::vector<Actor> actors;
    std::vector<std::uint64_t> entry(threads);
    for (int lock = 1; lock <= locks; ++lock)
        scene.file(static_cast<std::uint32_t>(lock), "/tmp/" + std::to_string(lock), static_cast<std::uint64_t>(lock));
    const auto pid_of = [&](std::size_t who) { return static_cast<std::int32_t>(100 + who / threads_each * 10); };
    for (std::size_t i = 0; i < threads; ++i) {
        const auto number = static_cast<std::int32_t>(i % threads_each);
        actors.push_back(number == 0 ? scene.process(pid_of(i), "p" + std::to_string(i))
                                     : scene.thread(actors[i - i % threads_each], pid_of(i) + number));
    }
    const auto target = [&](std::size_t who, int lock, bool exclusive) {
        const auto own = static_cast<std::uint32_t>(who * 100 + static_cast<unsigned>(lock));
        Target made = on(static_cast<std::uint32_t>(lock), own, exclusive ? wire::Mode::exclusive : wire::Mode::shared);
        made.fd = static_cast<std::int32_t>(own);
        return made;
    };
    std::int64_t ms = 10;
    const auto pass_time = [&] {
        const std::int64_t more = 1 + static_cast<std::int64_t>(random() % 4);
        for (std::int64_t i = 0; i < more; ++i) naive.tick();
        ms += more;
        scene.at(ms * 1'000);
    };
    for (int step = 0; step < steps; ++step) {
        pass_time();
        const std::size_t who = random() % threads;
        Naive::Process &one = naive.processes[who];
        if (one.waits_for >= 0) {
            const bool blocked = !naive.blockers(who).empty();
            if (!blocked) {
                scene.acquired(entry[who]);
                one.holds[one.waits_for] = one.exclusive;
            } else if (random() % 6 == 0) {
                scene.failed(entry[who], EINTR);
            } else {
                continue;
            }
            one.waits_for = -1;
            continue;
        }
        const int lock = 1 + static_cast<int>(random() % static_cast<unsigned>(locks));
        if (one.holds.count(lock) != 0) {
            scene.unlock(actors[who], target(who, lock, true));
            one.holds.erase(lock);
            continue;
        }
        one.exclusive = random() % 3 != 0;
        one.waits_for = lock;
        entry[who] = scene.request(actors[who], target(who, lock, one.exclusive));
        one.was_blocked = !naive.blockers(who).empty();
        if (one.was_blocked) continue;
        scene.acquired(entry[who]);
        one.holds[lock] = one.exclusive;
        one.waits_for = -1;
    }
    scene.file(99, "/tmp/99", 99);
    scene.lock(scene.process(99, "last"), on(99, 99));  // open waits count up to here
    const Report report = scene.play().report;
    expect_sums(report);
    const double tolerance =
        static_cast<double>(steps) * 0.01;  // a settlement may be off by a microsecond of the scene
    EXPECT_NEAR(static_cast<double>(report.blame.waited_ns) / kMs, naive.waited, tolerance);
    EXPECT_NEAR(static_cast<double>(report.blame.handover_ns) / kMs, naive.handover, tolerance);
    for (std::size_t i = 0; i < threads; i += threads_each) {
        double caused = 0;
        for (std::size_t one = i; one < i + threads_each; ++one) caused += naive.caused[one];
        EXPECT_NEAR(static_cast<double>(caused_by(report, pid_of(i))) / kMs, caused, tolerance)
            << "process " << pid_of(i);
    }
}

TEST(Culprits, AgreeWithANaiveModelByMilliseconds) {
    const std::uint32_t seed = std::random_device{}();
    for (std::uint32_t round = 0; round < 150 && !HasFailure(); ++round)
        compare_with_naive(seed + round, 2 + round % 9, 1 + static_cast<int>(round / 9 % 5), 300);
}

TEST(Culprits, AgreeWithANaiveModelAlsoWhereProcessesHaveManyThreads) {
    const std::uint32_t seed = std::random_device{}();
    for (std::uint32_t round = 0; round < 150 && !HasFailure(); ++round)
        compare_with_naive(seed + round, 1 + round % 3, 1 + static_cast<int>(round / 3 % 5), 300, 2 + round % 4);
}

TEST(Culprits, SumsOfADamagedRecordingStopAtTheEnd) {
    Stage stage;
    for (int i = 0; i < 3; ++i) {
        stage.scene.lock(stage.a, on(1, 1));
        const std::uint64_t entry = stage.scene.request(stage.b, on(1, 2));
        stage.scene.unlock(stage.a, on(1, 1));
        stage.scene.acquired(entry);
        stage.scene.source.events.back().duration_ns = 7'000'000'000'000'000'000;
        stage.scene.unlock(stage.b, on(1, 2));
    }
    const Report report = stage.scene.play().report;
    constexpr std::int64_t kMost = std::numeric_limits<std::int64_t>::max();
    EXPECT_EQ(report.blame.waited_ns, kMost);
    EXPECT_EQ(report.locks.at(0).waited_ns, kMost);
    EXPECT_EQ(report.locks.at(0).wait.total, kMost);
    EXPECT_GE(report.blame.handover_ns, 0);
}

}  // namespace
}  // namespace planloop::analysis
