// Requests that are alike are accounted for together (analysis/crowd.h). Each scene is played three times: as it is;
// with ranges that differ in length from process to process, which exclude each other as before but are not alike, so
// that everybody waits alone; and with nobody who looks at the timeline. What comes out must be the same.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "analysis/model.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;

constexpr std::uint64_t kLength = 1'000;

struct Kind {
    const char *name;
    std::uint32_t processes, threads, locks;  // threads of each process
    bool shared, children;
};

// Draws the same random numbers whatever the ranges are.
class Play {
  public:
    Play(const Kind &kind, std::uint32_t seed, bool alike) : kind_(kind), alike_(alike), engine_(seed) {
        for (std::uint32_t lock = 1; lock <= kind.locks; ++lock)
            scene_.file(lock, "/tmp/" + std::to_string(lock), lock);
        for (std::uint32_t i = 0; i < kind.processes; ++i) {
            const Actor parent = i == 0 ? Actor{} : actors_[(i - 1) / 2 * kind.threads].who;
            const Actor first =
                scene_.process(static_cast<std::int32_t>(100 + 10 * i), "p" + std::to_string(i), parent);
            for (std::uint32_t t = 0; t < kind.threads; ++t)
                actors_.push_back({t == 0 ? first : scene_.thread(first, first.pid + static_cast<std::int32_t>(t))});
        }
        for (int step = 0; step < 400; ++step) {
            scene_.at(scene_.now_us() + random() % 3'000);
            turn(actors_[random() % actors_.size()]);
        }
        scene_.file(99, "/tmp/99", 99);
        scene_.lock(scene_.process(99, "last"), {.file = 99, .fd = 99, .family = wire::Family::posix});
    }
    const Scene &scene() const { return scene_; }

  private:
    struct Member {
        Actor who;
        std::uint64_t waits = 0;  // entry
        std::uint32_t lock = 0;
        wire::Mode mode{};
        std::vector<std::uint32_t> holds = {};
        bool awaits_child = false;
    };
    struct Held {
        std::int32_t pid;
        std::uint32_t lock;
        wire::Mode mode;
    };

    std::uint32_t random() { return static_cast<std::uint32_t>(engine_()); }
    Target target(const Member &one, std::uint32_t lock, wire::Mode mode) const {
        Target made{.file = lock, .fd = static_cast<std::int32_t>(lock), .family = wire::Family::posix, .mode = mode};
        made.len = alike_ ? kLength : kLength + static_cast<std::uint64_t>(one.who.pid / 10);
        return made;
    }
    bool is_free(const Member &one) const {
        return std::none_of(held_.begin(), held_.end(), [&](const Held &held) {
            return held.lock == one.lock && held.pid / 10 != one.who.pid / 10 && exclude(held.mode, one.mode);
        });
    }
    void let_go(const Member &one, std::uint32_t lock) {
        held_.erase(
            std::remove_if(held_.begin(), held_.end(),
                           [&](const Held &held) { return held.lock == lock && held.pid / 10 == one.who.pid / 10; }),
            held_.end());
    }
    void turn(Member &one) {
        if (one.waits != 0) {
            const bool gets_it = is_free(one) || random() % 200 == 0;  // rarely, although somebody seems to have it
            if (!gets_it && random() % 20 != 0) return;
            if (gets_it) {
                scene_.acquired(one.waits);
                let_go(one, one.lock);
                held_.push_back({one.who.pid, one.lock, one.mode});
                one.holds.push_back(one.lock);
            } else {
                scene_.failed(one.waits, EINTR);
            }
            one.waits = 0;
        } else if (one.awaits_child) {
            scene_.event(one.who, EventKind::child_wait_ended);
            one.awaits_child = false;
        } else if (kind_.children && random() % 10 == 0) {
            const std::uint32_t child = 2 * static_cast<std::uint32_t>(one.who.pid / 10 - 10) + 1 + random() % 2;
            if (child >= kind_.processes) return;
            scene_.waits_for_child(one.who, static_cast<std::int32_t>(100 + 10 * child));
            one.awaits_child = true;
        } else if (!one.holds.empty() && random() % 3 != 0) {
            const std::uint32_t lock = one.holds.back();
            one.holds.pop_back();
            if (random() % 4 == 0)
                scene_.close(one.who, static_cast<std::int32_t>(lock), lock);
            else
                scene_.unlock(one.who,
                              {.file = lock, .fd = static_cast<std::int32_t>(lock), .family = wire::Family::posix});
            let_go(one, lock);
        } else {
            one.lock = 1 + random() % kind_.locks;
            one.mode = kind_.shared && random() % 3 == 0 ? wire::Mode::shared : wire::Mode::exclusive;
            one.waits = scene_.request(one.who, target(one, one.lock, one.mode));
            if (is_free(one) && random() % 2 == 0) turn(one);
        }
    }

    Kind kind_;
    bool alike_;
    std::mt19937 engine_;
    Scene scene_;
    std::vector<Member> actors_;
    std::vector<Held> held_;
};

// What is divided among several may come out differently by some nanoseconds, as it is divided in other portions.
void expect_equal(const char *what, const std::vector<Culprit> &one, const std::vector<Culprit> &other,
                  std::int64_t tolerance_ns) {
    SCOPED_TRACE(what);
    ASSERT_EQ(one.size(), other.size());
    const auto find = [&](const Culprit &row) {
        return *std::find_if(other.begin(), other.end(), [&](const Culprit &its) {
            return its.pid == row.pid && its.process == row.process && its.operation == row.operation &&
                   its.number == row.number;
        });
    };
    for (const Culprit &row : one) {
        EXPECT_LE(std::abs(row.caused_ns - find(row).caused_ns), tolerance_ns) << row.process << row.pid;
        EXPECT_EQ(row.waits, find(row).waits) << row.process << row.pid;
    }
}

// Orders of locks are told range by range.
std::vector<std::string> findings_of(const Report &report) {
    std::vector<std::string> found;
    for (const Finding &finding : report.findings)
        if (finding.kind != "lock_order_inversion" && finding.kind != "upgrade_deadlock")
            found.push_back(finding.kind + ": " + finding.summary);
    return found;
}

void expect_equal(const Report &one, const Report &other, std::int64_t tolerance_ns) {
    for (const Report *report : {&one, &other}) {
        const auto sum =
            std::accumulate(report->blame.processes.begin(), report->blame.processes.end(), std::int64_t{0},
                            [](std::int64_t total, const Culprit &row) { return total + row.caused_ns; });
        EXPECT_EQ(sum + report->blame.unknown_ns + report->blame.handover_ns, report->blame.waited_ns);
    }
    EXPECT_EQ(one.blame.waits, other.blame.waits);
    EXPECT_EQ(one.blame.waited_ns, other.blame.waited_ns);
    EXPECT_EQ(one.blame.unknown_ns, other.blame.unknown_ns);
    EXPECT_EQ(one.blame.handover_ns, other.blame.handover_ns);
    expect_equal("processes", one.blame.processes, other.blame.processes, tolerance_ns);
    expect_equal("call sites", one.blame.call_sites, other.blame.call_sites, tolerance_ns);
    expect_equal("operations", one.blame.operations, other.blame.operations, tolerance_ns);
    ASSERT_EQ(one.locks.size(), other.locks.size());
    for (std::size_t i = 0; i < one.locks.size(); ++i) {
        EXPECT_EQ(one.locks[i].acquisitions, other.locks[i].acquisitions);
        EXPECT_EQ(one.locks[i].contended, other.locks[i].contended);
        EXPECT_EQ(one.locks[i].failed, other.locks[i].failed);
        EXPECT_EQ(one.locks[i].wait.total, other.locks[i].wait.total);
        EXPECT_EQ(one.locks[i].hold.total, other.locks[i].hold.total);
        EXPECT_EQ(one.locks[i].queue.max, other.locks[i].queue.max);
    }
    EXPECT_EQ(findings_of(one), findings_of(other));
    ASSERT_EQ(one.critical_path.segments.size(), other.critical_path.segments.size());
    for (std::size_t i = 0; i < one.critical_path.segments.size(); ++i)
        EXPECT_EQ(one.critical_path.segments[i].from_ns, other.critical_path.segments[i].from_ns);
    ASSERT_EQ(one.waiting.size(), other.waiting.size());
}

using Blockers = std::vector<Blocker>;

void expect_equal(const Blockers &one, const Blockers &other, const char *where) {
    ASSERT_EQ(one.size(), other.size()) << where;
    for (std::size_t i = 0; i < one.size(); ++i) {
        EXPECT_EQ(one[i].pid, other[i].pid) << where;
        EXPECT_EQ(one[i].tid, other[i].tid) << where;
        EXPECT_EQ(one[i].ns, other[i].ns) << where;
        EXPECT_EQ(one[i].entry, other[i].entry) << where;
        EXPECT_EQ(one[i].until_utc_ns, other[i].until_utc_ns) << where;
    }
}

TEST(Crowd, IsAccountedForAsItsMembersWouldBeAlone) {
    constexpr Kind kKinds[] = {
        {"one lock", 24, 1, 1, false, false},     {"readers", 16, 1, 2, true, false},
        {"readers of two", 6, 1, 2, true, false}, {"chains and circles", 20, 1, 4, false, false},
        {"threads", 8, 3, 2, false, false},       {"children", 14, 1, 3, false, true},
    };
    const std::uint32_t seed = std::random_device{}();
    for (const Kind &kind : kKinds) {
        for (std::uint32_t round = 0; round < 40 && !HasFailure(); ++round) {
            SCOPED_TRACE(std::string(kind.name) + ", seed " + std::to_string(seed + round));
            AnalysisOptions options;
            options.long_wait_ns = 50'000'000;
            const Scene scene = Play(kind, seed + round, true).scene();
            const Outcome crowds = scene.play(options);
            const Outcome alone = Play(kind, seed + round, false).scene().play(options);
            const std::int64_t tolerance_ns = kind.shared || kind.children || kind.threads > 1 ? 20'000 : 0;
            expect_equal(crowds.report, alone.report, tolerance_ns);
            ASSERT_EQ(crowds.lines.size(), alone.lines.size());
            for (std::size_t i = 0; i < crowds.lines.size(); ++i)
                expect_equal(crowds.lines[i].blocked_by, alone.lines[i].blocked_by, "timeline");
            for (std::size_t i = 0; i < crowds.report.waiting.size(); ++i)
                expect_equal(crowds.report.waiting[i].blocked_by, alone.report.waiting[i].blocked_by, "waiting");
            test::VectorSource source = scene.source;
            expect_equal(crowds.report, analyse(source, options, {}), 0);
        }
    }
}

}  // namespace
}  // namespace planloop::analysis
