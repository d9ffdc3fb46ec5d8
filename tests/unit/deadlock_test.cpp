#include "analysis/deadlock.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

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
using wire::Family;
using wire::Mode;

constexpr int kSigkill = 9;

struct Ring {
    Scene scene;
    std::vector<Actor> actors;
    std::vector<std::uint64_t> requests;
    std::uint32_t size = 0;

    explicit Ring(std::uint32_t members, Family family = Family::flock, unsigned shuffle = 0) : size(members) {
        add_files(scene, members);
        for (std::uint32_t i = 0; i < members; ++i) {
            actors.push_back(scene.process(static_cast<std::int32_t>(101 + i), "perl"));
            scene.lock(actors[i], target(i + 1, 2 * i + 1, family));
        }
        std::vector<std::uint32_t> order(members);
        for (std::uint32_t i = 0; i < members; ++i) order[i] = i;
        if (shuffle != 0) {
            std::mt19937 random(shuffle);
            std::shuffle(order.begin(), order.end(), random);
        }
        requests.resize(members);
        for (const std::uint32_t i : order) {
            const std::uint32_t next = (i + 1) % members;
            requests[i] = scene.request(actors[i], target(next + 1, 1'000'000 + i, family));
        }
    }
};

TEST(Deadlock, RingsOfAnySizeAndOrderAreFoundOnceWithTheirMembers) {
    for (const std::uint32_t size : {2u, 3u, 13u, 64u, 2'000u}) {
        for (const unsigned shuffle : {0u, 1u, 2u}) {
            for (const Family family : {Family::flock, Family::ofd, Family::posix}) {
                Ring ring(size, family, shuffle);
                const Outcome outcome = ring.scene.play();
                ASSERT_EQ(outcome.count("deadlock"), 1u) << size;
                const Finding &finding = *outcome.find("deadlock");
                EXPECT_EQ(finding.certainty, Certainty::confirmed);
                EXPECT_EQ(finding.severity, Severity::error);
                EXPECT_EQ(finding.to_ns, -1);
                ASSERT_EQ(finding.participants.size(), size);
                EXPECT_EQ(pids_of(finding).size(), size);
                EXPECT_TRUE(finding.also_held_by.empty());
                for (std::uint32_t i = 0; i < size; ++i) {
                    const Participant &one = finding.participants[i];
                    const Participant &next = finding.participants[(i + 1) % size];
                    EXPECT_EQ(one.waits_on, std::vector<std::int32_t>{next.pid});
                    EXPECT_EQ(next.holds, std::vector<std::string>{one.waits_for});
                }
            }
        }
    }
}

// Deeper than any stack. That it takes no square of its size: long_chains_test.
TEST(Deadlock, RingOfTenThousand) {
    for (const unsigned shuffle : {0u, 3u}) {
        const Outcome outcome = Ring(10'000, Family::flock, shuffle).scene.play();
        ASSERT_EQ(outcome.count("deadlock"), 1u);
        EXPECT_EQ(outcome.find("deadlock")->participants.size(), 10'000u);
        EXPECT_LT(outcome.find("deadlock")->summary.size(), 5'000u);
    }
}

TEST(Deadlock, OfProcessesWithoutAStartRecord) {
    Ring ring(3);
    for (const Actor &actor : ring.actors) {
        ring.scene.source.processes.erase(actor.image);
        auto &events = ring.scene.source.events;
        events.erase(std::remove_if(events.begin(), events.end(),
                                    [&](const Event &event) {
                                        return event.kind == EventKind::process_started && event.pid == actor.pid;
                                    }),
                     events.end());
    }
    const Outcome outcome = ring.scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(pids_of(*outcome.find("deadlock")), (std::set<std::int32_t>{101, 102, 103}));
    EXPECT_NE(outcome.find("deadlock")->summary.find("process 101 holds /tmp/1"), std::string::npos);
}

TEST(Deadlock, OfAProcessThatHasThePidOfADeadOne) {
    Scene scene;
    add_files(scene, 3);
    const Actor before = scene.process(101, "before", {}, 1'000);
    scene.lock(before, target(3, 9));
    scene.ended(101, 0, 1'000);
    const Actor one = scene.process(101, "after", {}, 2'000), two = scene.process(102, "two", {}, 2'001);
    scene.lock(one, target(1, 1));
    scene.lock(two, target(2, 2));
    scene.request(one, target(2, 3));
    scene.ended(101, 0, 1'000);  // late word of the first one
    scene.request(two, target(1, 4));
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    const Finding &found = *outcome.find("deadlock");
    EXPECT_EQ(found.to_ns, -1) << found.summary;
    EXPECT_EQ(found.participants.front().process, "after");
    EXPECT_EQ(found.participants.front().holds, std::vector<std::string>{"flock:fe:01:1001"});
}

TEST(Deadlock, TellsWhoHoldsWhatAndWhatToDo) {
    Ring ring(3);
    const Outcome outcome = ring.scene.play();
    const std::string &summary = outcome.find("deadlock")->summary;
    std::cout << summary << '\n';
    for (const char *part : {"3 processes wait for each other in a circle", "deadlock", "perl 101 holds /tmp/1",
                             "waits for /tmp/2", "in one order everywhere: /tmp/1, then /tmp/2, then /tmp/3",
                             "The one to change is perl 103: it held /tmp/3 when it asked for /tmp/1", "kill 101"})
        EXPECT_NE(summary.find(part), std::string::npos) << part;
}

TEST(Deadlock, SaysWhatEndedIt) {
    struct Case {
        const char *words;
        void (*end)(Ring &);
    };
    const Case cases[] = {
        {"perl 102's wait for /tmp/3 was interrupted by a signal",
         [](Ring &ring) { ring.scene.failed(ring.requests[1], EINTR); }},
        {"perl 102's wait for /tmp/3 timed out", [](Ring &ring) { ring.scene.failed(ring.requests[1], ETIMEDOUT); }},
        {"perl 102 was killed by signal 9 (SIGKILL)", [](Ring &ring) { ring.scene.ended(102, kSigkill); }},
        {"perl 102 was killed by signal 9 (SIGKILL)",
         [](Ring &ring) {  // told after the next owner got the lock
             ring.scene.acquired(ring.requests[0]);
             ring.scene.ended(102, kSigkill);
         }},
        {"perl 102 was killed by signal 9 (SIGKILL)",
         [](Ring &ring) {  // told when the next owner has ended in peace already
             ring.scene.acquired(ring.requests[0]);
             ring.scene.ended(101, 0);
             ring.scene.ended(102, kSigkill);
         }},
    };
    for (const Case &one : cases) {
        Ring ring(3);
        ring.scene.at(1'200'000);
        one.end(ring);
        const Outcome outcome = ring.scene.play();
        ASSERT_EQ(outcome.count("deadlock"), 1u) << one.words;
        const Finding &finding = *outcome.find("deadlock");
        EXPECT_EQ(finding.resolved_by, one.words);
        EXPECT_EQ(finding.certainty, Certainty::confirmed);
        EXPECT_GT(finding.to_ns, finding.from_ns);
        EXPECT_NE(finding.summary.find("It lasted 1.1 s until " + std::string(one.words)), std::string::npos)
            << finding.summary;
        EXPECT_EQ(finding.participants.size(), 3u);
    }
}

TEST(Deadlock, InterruptedWaitThatIsRepeatedAtOnceIsTheSameDeadlock) {
    Ring ring(2);
    for (int i = 0; i < 5; ++i) {
        ring.scene.failed(ring.requests[1], EINTR);
        ring.requests[1] = ring.scene.request(ring.actors[1], target(1, 1'000'001));
    }
    const Outcome outcome = ring.scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->to_ns, -1);
}

TEST(Deadlock, ThatDissolvesByAnOrdinaryAcquisitionIsNone) {
    Ring ring(3);
    ring.scene.acquired(ring.requests[0]);  // somebody's release was never seen
    const Outcome outcome = ring.scene.play();
    EXPECT_EQ(outcome.count("deadlock"), 0u);
}

TEST(Deadlock, RefusedByTheKernelIsToldAsRefused) {
    Ring ring(3, Family::posix);
    ring.scene.failed(ring.requests[2], EDEADLK);
    const Outcome outcome = ring.scene.play();
    EXPECT_EQ(outcome.count("deadlock"), 0u);
    ASSERT_EQ(outcome.count("kernel_refused"), 1u);
    EXPECT_EQ(outcome.find("kernel_refused")->participants.size(), 3u);
    std::cout << outcome.find("kernel_refused")->summary << '\n';
}

TEST(Deadlock, CallThatTheKernelCouldMakeNothingOfIsNone) {
    for (const int error : {EBADF, EINVAL, EFAULT}) {
        Scene scene;
        add_files(scene, 1);
        const Actor one = scene.process(101, "x");
        scene.lock(one, target(1, 1));
        Target again = target(1, 2);
        again.fd = 77;
        scene.failed(scene.request(one, again), error);
        EXPECT_EQ(scene.play().count("self_deadlock"), 0u) << error;
    }
}

TEST(Deadlock, MereContentionIsNone) {
    Scene scene;
    add_files(scene, 2);
    std::vector<Actor> actors;
    actors.reserve(30);
    for (std::int32_t i = 0; i < 30; ++i) actors.push_back(scene.process(100 + i, "x"));
    for (int round = 0; round < 20; ++round) {
        std::vector<std::uint64_t> waits;
        for (std::uint32_t i = 0; i < 30; ++i) waits.push_back(scene.request(actors[i], target(1, i + 1)));
        for (std::uint32_t i = 0; i < 30; ++i) {
            scene.acquired(waits[i]);
            scene.lock(actors[i], target(2, 100 + i));
            scene.unlock(actors[i], target(2, 100 + i));
            scene.unlock(actors[i], target(1, i + 1));
        }
    }
    const Outcome outcome = scene.play();
    EXPECT_TRUE(outcome.report.findings.empty());
    EXPECT_TRUE(outcome.report.held.empty());
}

TEST(Deadlock, BystandersAreNoParticipants) {
    Ring ring(3);
    const Actor hanger_on = ring.scene.process(900, "late");
    ring.scene.request(hanger_on, target(1, 900));
    const Outcome outcome = ring.scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->participants.size(), 3u);
    EXPECT_EQ(pids_of(*outcome.find("deadlock")).count(900), 0u);
    EXPECT_EQ(outcome.report.waiting.size(), 4u);
}

TEST(Deadlock, SilentWhereOneOfTheRingOnlyTries) {
    Scene scene;
    add_files(scene, 2);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, target(1, 1));
    scene.lock(two, target(2, 2));
    scene.request(one, target(2, 3));
    Target attempt = target(1, 4);
    attempt.blocking = false;
    scene.failed(scene.request(two, attempt), EAGAIN);
    EXPECT_EQ(scene.play().count("deadlock"), 0u);
}

TEST(Deadlock, SilentWhileAnotherThreadOfTheOwnerHoldsAndRuns) {
    Scene scene;
    add_files(scene, 2);
    const Actor main = scene.process(101, "x"), other = scene.process(102, "y");
    const Actor worker = scene.thread(main, 111);
    scene.lock(worker, target(1, 1));  // the worker runs on
    scene.lock(other, target(2, 2));
    scene.request(main, target(2, 3));
    scene.request(other, target(1, 4));
    EXPECT_EQ(scene.play().count("deadlock"), 0u);
}

TEST(Deadlock, OfThreadsOfOneProcess) {
    Scene scene;
    add_files(scene, 2);
    const Actor one = scene.process(101, "x");
    const Actor two = scene.thread(one, 102);
    scene.lock(one, target(1, 1));
    Target second = target(2, 2);
    scene.lock(two, second);
    Target wanted = target(2, 3);
    wanted.fd = 40;
    scene.request(one, wanted);
    wanted = target(1, 4);
    wanted.fd = 41;
    scene.request(two, wanted);
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->certainty, Certainty::confirmed);
    EXPECT_EQ(outcome.find("deadlock")->participants.size(), 2u);
}

TEST(Deadlock, OfSharedHoldersThatUpgradeIsOneFinding) {
    Scene scene;
    add_files(scene, 1);
    std::vector<Actor> actors;
    for (std::uint32_t i = 0; i < 3; ++i) {
        actors.push_back(scene.process(static_cast<std::int32_t>(101 + i), "x"));
        Target shared = target(1, i + 1, Family::ofd);
        shared.mode = Mode::shared;
        scene.lock(actors[i], shared);
    }
    for (std::uint32_t i = 0; i < 3; ++i) scene.request(actors[i], target(1, i + 1, Family::ofd));
    const Outcome outcome = scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->participants.size(), 3u);
}

TEST(Deadlock, RangesThatDoNotOverlapMakeNone) {
    for (const std::uint64_t start : {0u, 10u}) {
        Scene scene;
        add_files(scene, 2);
        const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
        Target a = target(1, 1, Family::posix), b = target(2, 2, Family::posix);
        a.len = b.len = 10;
        scene.lock(one, a);
        scene.lock(two, b);
        b.description = 3;
        scene.request(one, b);
        a.description = 4;
        a.start = start;
        scene.request(two, a);
        EXPECT_EQ(scene.play().count("deadlock"), start == 0 ? 1u : 0u);
    }
}

TEST(Deadlock, IsOnlyPossibleWhenEventsWereLost) {
    Ring ring(3);
    ring.scene.source.source_notes.dropped = 5;
    const Outcome outcome = ring.scene.play();
    ASSERT_EQ(outcome.count("deadlock"), 1u);
    EXPECT_EQ(outcome.find("deadlock")->certainty, Certainty::possible);
    EXPECT_EQ(outcome.count("lost_events"), 1u);
}

// Random blocking locks of random processes that back off in no order: what a naive search over the final state
// finds is what is found.
TEST(Deadlock, RandomisedAgreesWithANaiveSearch) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 engine(seed);
    const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
    for (int run = 0; run < 300; ++run) {
        const std::uint32_t processes = 2 + random() % 8, files = 2 + random() % 6;
        Scene scene;
        add_files(scene, files);
        std::vector<Actor> actors;
        for (std::uint32_t i = 0; i < processes; ++i)
            actors.push_back(scene.process(static_cast<std::int32_t>(101 + i), "x"));
        std::vector<int> owner(files, -1), waits_for(processes, -1);
        std::vector<std::uint64_t> entries(processes);
        for (int step = 0; step < 60; ++step) {
            const std::uint32_t who = random() % processes, file = random() % files;
            if (waits_for[who] >= 0) continue;
            const Target what = target(file + 1, 1 + who * files + file);
            if (owner[file] == static_cast<int>(who)) {
                if (random() % 4 != 0) continue;
                scene.unlock(actors[who], what);
                owner[file] = -1;
                for (std::uint32_t other = 0; other < processes && owner[file] < 0; ++other) {
                    if (waits_for[other] != static_cast<int>(file)) continue;
                    waits_for[other] = -1;
                    owner[file] = static_cast<int>(other);
                    scene.acquired(entries[other]);
                }
            } else if (owner[file] < 0) {
                scene.lock(actors[who], what);
                owner[file] = static_cast<int>(who);
            } else {
                entries[who] = scene.request(actors[who], what);
                waits_for[who] = static_cast<int>(file);
            }
        }
        std::set<std::int32_t> in_cycles;
        for (std::uint32_t i = 0; i < processes; ++i) {
            std::uint32_t at = i;
            for (std::uint32_t hops = 0; hops < processes && waits_for[at] >= 0; ++hops) {
                at = static_cast<std::uint32_t>(owner[static_cast<std::size_t>(waits_for[at])]);
                if (at == i) in_cycles.insert(actors[i].pid);
                if (at == i) break;
            }
        }
        const Outcome outcome = scene.play();
        std::set<std::int32_t> found;
        for (const Finding &finding : outcome.report.findings) {
            if (finding.kind != "deadlock") continue;
            for (const std::int32_t pid : pids_of(finding)) {
                EXPECT_TRUE(found.insert(pid).second) << "twice, seed " << seed << " run " << run;
            }
        }
        EXPECT_EQ(found, in_cycles) << "seed " << seed << " run " << run;
    }
}

TEST(Deadlock, SameInputGivesTheSameReport) {
    Ring ring(13, Family::ofd, 5);
    ring.scene.failed(ring.requests[4], EINTR);
    const Outcome one = ring.scene.play(), two = ring.scene.play();
    ASSERT_EQ(one.report.findings.size(), two.report.findings.size());
    for (std::size_t i = 0; i < one.report.findings.size(); ++i)
        EXPECT_EQ(one.report.findings[i].summary, two.report.findings[i].summary);
    ASSERT_EQ(one.lines.size(), two.lines.size());
}

}  // namespace
}  // namespace planloop::analysis
