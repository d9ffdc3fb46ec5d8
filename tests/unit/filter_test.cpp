#include "analysis/filter.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <set>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "analysis/export/format.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;

constexpr std::int64_t kUs = 1'000;

// Two processes deadlock over /tmp/a and /tmp/b until one is killed; a third unlocks what it does not hold, on /tmp/c;
// which therefore has no row; a fourth takes a POSIX lock of /tmp/d and keeps it.
Scene played_scene() {
    Scene scene;
    scene.file(1, "/tmp/a", 1);
    scene.file(2, "/tmp/b", 2);
    scene.file(3, "/tmp/c", 3);
    scene.file(4, "/tmp/d", 4);
    const Actor one = scene.process(101, "perl"), two = scene.process(102, "bash"), three = scene.process(103, "bash");
    const Actor four = scene.process(104, "make");
    scene.at(100).lock(one, {.file = 1, .fd = 11, .description = 1});
    scene.lock(two, {.file = 2, .fd = 12, .description = 2});
    scene.request(one, {.file = 2, .fd = 12, .description = 3});
    const auto second = scene.request(two, {.file = 1, .fd = 11, .description = 4});
    scene.at(200).unlock(three, {.file = 3, .fd = 13, .description = 5});
    scene.at(300).lock(four, {.file = 4, .fd = 14, .family = wire::Family::posix});
    scene.at(400).ended(101, 9);
    scene.acquired(second);
    return scene;
}

Filter filter(const std::function<void(Filter &)> &set) {
    Filter made;
    made.words = "as asked";
    set(made);
    return made;
}

Moment at_us(std::int64_t us) {
    return {Scene::kEpochNs + us * kUs, 1, false};
}

std::multiset<std::string> kinds_of(const Report &report) {
    std::multiset<std::string> kinds;
    for (const Finding &finding : report.findings) kinds.insert(finding.kind);
    return kinds;
}

std::string text_of(const TimelineEntry &line) {
    std::ostringstream text;
    text << line.utc_ns << ' ' << static_cast<int>(line.kind) << ' ' << line.pid << ' ' << line.lock << ' '
         << line.wait_ns << ' ' << line.hold_ns << ' ' << line.reason;
    return text.str();
}

struct Case {
    const char *name;
    std::function<void(Filter &)> set;
    std::function<bool(const TimelineEntry &)> told;  // the same, said once more
    std::multiset<std::string> findings;
    std::set<std::string> rows;  // paths
    std::size_t held;
};

TEST(Filter, NarrowsTimelineFindingsAndTablesAndNothingElse) {
    const std::string killed = "killed_while_holding";
    const Case cases[] = {
        {"lock by path",
         [](Filter &it) { it.locks = {"/tmp/a"}; },
         [](const TimelineEntry &line) { return line.path == "/tmp/a"; },
         {"deadlock", killed},
         {"/tmp/a", "/tmp/b"},  // the deadlock names it
         1},
        {"lock by id",
         [](Filter &it) { it.locks = {"flock:fe:01:3"}; },
         [](const TimelineEntry &line) { return line.path == "/tmp/c"; },
         {"unlock_without_lock"},
         {},
         0},
        {"family",
         [](Filter &it) { it.families = {"posix"}; },
         [](const TimelineEntry &line) { return line.path == "/tmp/d"; },
         {},
         {"/tmp/d"},
         1},
        {"pid",
         [](Filter &it) { it.pids = {103}; },
         [](const TimelineEntry &line) { return line.pid == 103; },
         {"unlock_without_lock"},
         {},
         0},
        {"one of several pids",
         [](Filter &it) {
             it.pids = {7, 104};
         },
         [](const TimelineEntry &line) { return line.pid == 104; },
         {},
         {"/tmp/d"},
         1},
        {"process",
         [](Filter &it) { it.processes = {"bash"}; },
         [](const TimelineEntry &line) { return line.process == "bash"; },
         {"deadlock", "unlock_without_lock"},
         {"/tmp/a", "/tmp/b"},
         2},
        {"process and pid of two different ones",
         [](Filter &it) {
             it.processes = {"perl"};
             it.pids = {102};
         },
         [](const TimelineEntry &) { return false; },
         {},
         {},
         0},
        {"trace by its beginning",
         [](Filter &it) { it.traces = {"tr_10"}; },
         [](const TimelineEntry &) { return true; },
         {"deadlock", killed, "unlock_without_lock"},
         {"/tmp/a", "/tmp/b", "/tmp/d"},
         3},
        {"another trace",
         [](Filter &it) { it.traces = {"tr_104"}; },
         [](const TimelineEntry &line) { return line.pid == 104; },
         {},
         {"/tmp/d"},
         1},
        {"since",
         [](Filter &it) { it.since = at_us(350); },
         [](const TimelineEntry &line) { return line.utc_ns >= at_us(350).ns; },
         {"deadlock", killed},
         {"/tmp/a", "/tmp/b", "/tmp/d"},
         3},
        {"until",
         [](Filter &it) { it.until = at_us(150); },
         [](const TimelineEntry &line) { return line.utc_ns <= at_us(150).ns; },
         {"deadlock"},
         {"/tmp/a", "/tmp/b"},
         1},
        {"finding",
         [](Filter &it) {
             it.findings = {"unlock_without_lock", "long_wait"};
         },
         [](const TimelineEntry &) { return true; },
         {"unlock_without_lock"},
         {"/tmp/a", "/tmp/b", "/tmp/d"},
         3},
    };
    const Scene scene = played_scene();
    const Outcome all = scene.play();
    ASSERT_EQ(kinds_of(all.report), (std::multiset<std::string>{"deadlock", killed, "unlock_without_lock"}));
    for (const Case &one : cases) {
        SCOPED_TRACE(one.name);
        AnalysisOptions options;
        options.filter = filter(one.set);
        const Outcome some = scene.play(options);
        std::vector<std::string> wanted, told;
        for (const TimelineEntry &line : all.lines)
            if (one.told(line)) wanted.push_back(text_of(line));
        for (const TimelineEntry &line : some.lines) told.push_back(text_of(line));
        EXPECT_EQ(told, wanted);
        EXPECT_EQ(kinds_of(some.report), one.findings);
        EXPECT_EQ(some.report.findings_not_shown, all.report.findings.size() - one.findings.size());
        std::set<std::string> rows;
        for (const LockRow &row : some.report.locks) rows.insert(row.path);
        EXPECT_EQ(rows, one.rows);
        EXPECT_EQ(some.report.held.size(), one.held);
        EXPECT_EQ(some.report.events, all.report.events);
        // No verdict and no sum is another one.
        for (const Finding &finding : some.report.findings) {
            const Finding *const same = all.find(finding.kind);
            EXPECT_EQ(finding.summary, same->summary);
            EXPECT_EQ(finding.certainty, same->certainty);
        }
        for (const LockRow &row : some.report.locks) {
            for (const LockRow &same : all.report.locks) {
                if (same.id != row.id) continue;
                EXPECT_EQ(row.hold.total, same.hold.total);
            }
        }
    }
}

// A window spares lines that nobody sees, and what they need; what is seen is what stands there without it, also while
// an end is undecided (a conversion) and where those that wait do so as a crowd.
TEST(Filter, AWindowTellsOfACrowdWhatTheWholeTells) {
    constexpr int kProcesses = 12;
    Scene scene;
    scene.file(1, "/tmp/a", 1);
    std::vector<Actor> all;
    std::vector<std::uint64_t> calls;
    const auto target = [](std::size_t who, wire::Mode mode = wire::Mode::exclusive) {
        return test::Target{.file = 1, .fd = 3, .description = static_cast<std::uint32_t>(who + 1), .mode = mode};
    };
    all.reserve(kProcesses);
    for (int i = 0; i < kProcesses; ++i) all.push_back(scene.process(101 + i, "worker"));
    for (std::size_t i = 0; i < all.size(); ++i) calls.push_back(scene.request(all[i], target(i)));
    for (std::size_t i = 0; i < all.size(); ++i) {
        scene.acquired(calls[i]);
        if (i % 4 == 1) scene.acquired(scene.request(all[i], target(i, wire::Mode::shared)));
        scene.unlock(all[i], target(i));
    }
    const auto lines_of = [&](const Filter &wanted) {
        test::VectorSource source = scene.source;
        AnalysisOptions options;
        options.filter = wanted;
        std::vector<std::pair<std::int64_t, std::string>> lines;
        analyse(source, options, [&](const TimelineEntry &line) {
            std::string text = text_of(line);
            for (const Blocker &one : line.blocked_by)
                text += " " + std::to_string(one.pid) + ":" + std::to_string(one.ns);
            lines.emplace_back(line.utc_ns, text);
        });
        return lines;
    };
    const auto whole = lines_of({});
    ASSERT_GT(whole.size(), 3U * kProcesses - 1);
    for (std::int64_t from = 0; from < scene.now_us(); from += 3) {
        for (std::int64_t to = from; to < scene.now_us(); to += 5) {
            auto wanted = whole;
            std::erase_if(wanted,
                          [&](const auto &line) { return line.first < at_us(from).ns || line.first > at_us(to).ns; });
            const auto told = lines_of(filter([&](Filter &it) {
                it.since = at_us(from);
                it.until = at_us(to);
            }));
            ASSERT_EQ(told, wanted) << from << " to " << to;
        }
    }
}

TEST(Filter, WhatIsAboutNoLockAndNoProcessIsAboutAll) {
    Scene scene = played_scene();
    scene.source.source_notes.dropped = 3;
    AnalysisOptions options;
    options.filter = filter([](Filter &it) { it.locks = {"/tmp/d"}; });
    EXPECT_EQ(kinds_of(scene.play(options).report), (std::multiset<std::string>{"lost_events"}));
    options.filter.findings = {"deadlock"};
    EXPECT_TRUE(kinds_of(scene.play(options).report).empty());
}

TEST(Filter, TimesOfDayAreThoseOfTheRecording) {
    constexpr std::int64_t kHour = 3'600'000'000'000, kDay = 24 * kHour, kSecond = 1'000'000'000;
    const std::int64_t midnight = 20'000 * kDay;
    struct {
        const char *name;
        std::int64_t begins, said, meant;
    } const cases[] = {
        {"later that day", 8 * kHour, 9 * kHour, 9 * kHour},
        {"a little before it began", 8 * kHour, 7 * kHour, 7 * kHour},
        {"over midnight", 23 * kHour, kHour, 25 * kHour},
        {"in the evening of a recording that began in the night", kHour, 23 * kHour, 23 * kHour},
    };
    for (const auto &one : cases) {
        SCOPED_TRACE(one.name);
        Filter wanted;
        wanted.since = wanted.until = Moment{one.said, kSecond, true};
        Shown shown(wanted);
        shown.begin_at(midnight + one.begins);
        EXPECT_EQ(shown.since_ns(), midnight + one.meant);
        EXPECT_EQ(shown.until_ns(), midnight + one.meant + kSecond - 1) << "all of the second that was named";
    }
    const Filter nothing;
    Shown shown(nothing);
    shown.begin_at(midnight);
    EXPECT_EQ(shown.since_ns(), INT64_MIN);
    EXPECT_EQ(shown.until_ns(), INT64_MAX);
}

TEST(Filter, AnExportTellsACallWholeOrNotAtAll) {
    const Scene scene = played_scene();
    const auto lines = [&](const Filter &wanted) {
        test::VectorSource source = scene.source;
        std::string text;
        AnalysisOptions options;
        options.filter = wanted;
        export_session(source, options, *find_format("jsonl"), {}, [&](std::string_view piece) { text += piece; });
        return std::count(text.begin(), text.end(), '\n');
    };
    EXPECT_EQ(lines({}), 4);
    EXPECT_EQ(lines(filter([](Filter &it) { it.since = at_us(250); })), 4) << "held meanwhile";
    EXPECT_EQ(lines(filter([](Filter &it) { it.until = at_us(250); })), 3)
        << "the call that came back later waited then";
    EXPECT_EQ(lines(filter([](Filter &it) { it.until = at_us(100); })), 1);
    EXPECT_EQ(lines(filter([](Filter &it) { it.pids = {102}; })), 2);
}

}  // namespace
}  // namespace planloop::analysis
