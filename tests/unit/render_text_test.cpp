#include <gtest/gtest.h>

#include <cerrno>

#include "analysis/render/escape.h"
#include "analysis/render/json.h"
#include "analysis/render/table.h"
#include "analysis/render/text.h"

namespace planloop::analysis {
namespace {

constexpr std::int64_t kMs = 1'000'000;
constexpr std::int64_t kEightOClock = 1'795'334'400'000 * kMs;  // 2026-11-22T08:00:00Z

TimelineEntry entry_of(EventKind kind) {
    TimelineEntry entry;
    entry.kind = kind;
    entry.utc_ns = kEightOClock + 2'350 * kMs + 999'999;
    entry.trace_id = "tr_abc";
    entry.operation = "update";
    entry.process = "flock";
    entry.pid = entry.tid = 4711;
    entry.lock = "flock:fe:01:1234";
    entry.path = "/tmp/a";
    entry.family = wire::Family::flock;
    entry.mode = wire::Mode::exclusive;
    return entry;
}

std::string line_of(const TimelineEntry &entry, const TextStyle &style = {}) {
    std::string out;
    append_text(out, entry, style);
    return out;
}

// Runs of spaces are layout.
std::string squeezed(const std::string &text) {
    std::string out;
    for (const char c : text) {
        if (c != ' ' || out.empty() || out.back() != ' ') out.push_back(c);
    }
    return out;
}

TEST(RenderText, LinesHaveTheQuickReferencesForm) {
    TimelineEntry requested = entry_of(EventKind::lock_requested);
    TimelineEntry acquired = entry_of(EventKind::lock_acquired);
    acquired.wait_ns = 2'344 * kMs + 999'999;
    TimelineEntry released = entry_of(EventKind::lock_released);
    released.hold_ns = 1'230 * kMs;
    released.reason = "unlock";
    TimelineEntry failed = entry_of(EventKind::lock_failed);
    failed.wait_ns = 7 * kMs;
    failed.error = EINTR;
    EXPECT_EQ(squeezed(line_of(requested)), "tr_abc: lock_requested (update) 08:00:02.350 flock 4711 /tmp/a\n");
    EXPECT_EQ(squeezed(line_of(acquired)), "tr_abc: lock_acquired (wait: 2344ms) 08:00:02.350 flock 4711 /tmp/a\n");
    EXPECT_EQ(squeezed(line_of(released)), "tr_abc: lock_released (hold: 1230ms) 08:00:02.350 flock 4711 /tmp/a\n");
    EXPECT_EQ(squeezed(line_of(failed)),
              "tr_abc: lock_failed (wait: 7ms) 08:00:02.350 flock 4711 /tmp/a EINTR: Interrupted system call\n");
}

TEST(RenderText, WaitsNameTheirBlockers) {
    TimelineEntry acquired = entry_of(EventKind::lock_acquired);
    acquired.blocked_by = {{12, 12, 40 * kMs, "perl"}, {13, 15, 2 * kMs, "sh"}, {0, 0, 1'000, ""}};
    EXPECT_NE(
        line_of(acquired).find("waited for perl 12 (40ms), sh 13/15 (2.0ms), a program that was not traced (1.0us)"),
        std::string::npos);
    TimelineEntry requested = entry_of(EventKind::lock_requested);
    requested.blocked_by = {{12, 12, 0, "perl"}};
    EXPECT_NE(line_of(requested).find("waits for perl 12\n"), std::string::npos);
}

TEST(RenderText, TellsWhatIsNotTheUsualLock) {
    struct Case {
        wire::Family family;
        wire::Mode mode;
        std::uint64_t start, len;
        const char *says;
    };
    for (const Case &c : {Case{wire::Family::flock, wire::Mode::shared, 0, 0, "/tmp/a  shared\n"},
                          Case{wire::Family::posix, wire::Mode::exclusive, 0, 0, "/tmp/a  posix\n"},
                          Case{wire::Family::posix, wire::Mode::shared, 100, 50, "posix, shared, bytes 100-149\n"},
                          Case{wire::Family::ofd, wire::Mode::exclusive, 7, 0, "ofd, bytes 7 to the end\n"}}) {
        TimelineEntry entry = entry_of(EventKind::lock_acquired);
        entry.family = c.family;
        entry.mode = c.mode;
        entry.start = c.start;
        entry.len = c.len;
        EXPECT_NE(line_of(entry).find(c.says), std::string::npos) << line_of(entry);
    }
}

TEST(RenderText, TellsHowAHoldEndedUnlessByUnlocking) {
    TimelineEntry released = entry_of(EventKind::lock_released);
    released.reason = "killed";
    released.certainty = EndCertainty::approximate;
    EXPECT_NE(line_of(released).find("ended by killed  time approximate"), std::string::npos);
}

TEST(RenderText, NamesCannotSteerTheTerminal) {
    TimelineEntry entry = entry_of(EventKind::lock_acquired);
    entry.path = "/tmp/\x1b]0;title\x07\n\xff\xe2\x80\xae";
    entry.process = "a\tb";
    const std::string line = line_of(entry);
    EXPECT_NE(line.find("/tmp/\\x1b]0;title\\x07\\n\\xff\\u{202e}"), std::string::npos) << line;
    EXPECT_NE(line.find("a\\tb 4711"), std::string::npos) << line;
    EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(RenderText, ColoursOnlyWhenAsked) {
    TimelineEntry failed = entry_of(EventKind::lock_failed);
    EXPECT_EQ(line_of(failed).find('\x1b'), std::string::npos);
    EXPECT_NE(line_of(failed, {true, 80}).find("\x1b[31m"), std::string::npos);
}

Report report_with_ring() {
    Report report;
    report.session = "x";
    report.from_utc_ns = kEightOClock;
    report.to_utc_ns = kEightOClock + 3'000 * kMs;
    report.processes = 2;
    report.events = 9;
    LockRow a;
    a.id = "flock:fe:01:1";
    a.path = "/tmp/a";
    a.acquisitions = 2;
    a.wait.max = a.wait.total = 1'500 * kMs;
    LockRow b = a;
    b.id = "flock:fe:01:2";
    b.path = "/tmp/b";
    b.wait = {};
    report.locks = {a, b};
    Finding ring;
    ring.kind = "deadlock";
    ring.severity = Severity::error;
    ring.summary = "2 processes wait for each other in a circle.";
    ring.from_ns = 1'000 * kMs;
    ring.participants = {{101, 101, "perl", "perl one", "tr_a", {a.id}, b.id, {102}},
                         {102, 102, "perl", "perl two", "tr_b", {b.id}, a.id, {101}}};
    report.findings = {ring};
    return report;
}

TEST(RenderText, DeadlockIsNamedWithItsParticipantsAndPaths) {
    const std::string text = render_text(report_with_ring(), {});
    EXPECT_NE(text.find("error: deadlock (confirmed) at 08:00:01.000, still in force at the end"), std::string::npos);
    EXPECT_NE(text.find("perl 101 holds /tmp/a and waits for /tmp/b, held by 102"), std::string::npos) << text;
    EXPECT_NE(text.find("started as: perl two"), std::string::npos) << text;
    EXPECT_NE(text.find("Verdict: 1 deadlock\n"), std::string::npos) << text;
}

TEST(RenderText, OfVeryManyTheFirstAreListedAndTheRestCounted) {
    Report report = report_with_ring();
    std::vector<Participant> &ring = report.findings[0].participants;
    for (std::int32_t pid = 103; ring.size() < 10'000; ++pid)
        ring.push_back({pid, pid, "perl", "perl", "", {}, "", {}});
    for (std::size_t i = 0; i < 49; ++i) report.waiting.emplace_back();
    report.held.resize(48);
    const std::string text = render_text(report, {});
    EXPECT_NE(text.find("    perl 148\n    ... and 9952 more (--json lists all)\n"), std::string::npos) << text;
    EXPECT_NE(text.find("\n  ... and 1 more (--json lists all)\n"), std::string::npos) << text;
    EXPECT_EQ(text.find("perl 149"), std::string::npos);
    EXPECT_EQ(text.find("... and 0"), std::string::npos);
    EXPECT_NE(json_after_timeline(report).find("\"pid\":10100"), std::string::npos);
}

TEST(RenderText, VerdictCountsKindsAndDeniesADeadlock) {
    Report report;
    EXPECT_EQ(verdict_sentence(report), "no deadlock and nothing else to report");
    Finding finding;
    finding.kind = "killed_while_holding";
    report.findings = {finding, finding};
    EXPECT_EQ(verdict_sentence(report), "no deadlock, 2 killed_while_holding");
    finding.kind = "deadlock";
    report.findings = {finding, finding};
    EXPECT_EQ(verdict_sentence(report), "2 deadlocks");
}

TEST(RenderText, RecordedSentenceNamesTheLongestWaitAndLosses) {
    Report report = report_with_ring();
    report.dropped = 4;
    EXPECT_EQ(recorded_sentence(report),
              "2 processes, 9 lock events on 2 locks, longest wait 1500ms for /tmp/a, 4 events lost");
    EXPECT_EQ(recorded_sentence(Report{}), "no lock call was recorded");
}

TEST(RenderText, LocksOfOneFileAndOfNoneAreToldApart) {
    Report report = report_with_ring();
    report.locks[0].family = report.locks[1].family = wire::Family::flock;
    LockRow posix = report.locks[0];
    posix.id = "posix:fe:01:1";
    posix.family = wire::Family::posix;
    LockRow no_file = posix;
    no_file.id = "posix:00:00:0";
    no_file.path.clear();
    report.locks.push_back(posix);
    report.locks.push_back(no_file);
    const std::string text = render_text(report, {false, 80});
    for (const char *row : {"  /tmp/a\n", "  /tmp/b\n", "  /tmp/a  posix\n", "  posix:00:00:0\n"})
        EXPECT_NE(text.find(row), std::string::npos) << row << text;
}

TEST(RenderText, HeldLocksNameAllThatShareThemAndWhoTookThem) {
    Report report = report_with_ring();
    HeldLock held;
    held.lock = "flock:fe:01:1";
    held.path = "/tmp/a";
    held.since_ns = 1'000 * kMs;
    held.acquired_by = {7, "flock"};
    held.holders = {{8, "bash"}, {9, "sleep"}};
    report.held = {held};
    EXPECT_NE(render_text(report, {false, 120}).find("/tmp/a for 2000ms: bash 8, sleep 9, acquired by flock 7"),
              std::string::npos);
}

TEST(RenderText, SentencesAreFoldedToTheTerminal) {
    Report report = report_with_ring();
    report.findings[0].summary.assign(300, 'x');
    for (std::size_t i = 9; i < 300; i += 10) report.findings[0].summary[i] = ' ';
    const std::string text = render_text(report, {false, 60});
    const std::size_t begin = text.find("  xxxxxxxxx");
    ASSERT_NE(begin, std::string::npos);
    for (std::size_t at = begin; text.compare(at, 3, "  x") == 0;) {
        const std::size_t end = text.find('\n', at);
        EXPECT_LE(end - at, 60U);
        at = end + 1;
    }
}

TEST(RenderText, DurationsKeepTheirMeaningAtAGlance) {
    const std::pair<std::int64_t, const char *> cases[] = {{-5, "0ns"},
                                                           {0, "0ns"},
                                                           {999, "999ns"},
                                                           {1'000, "1.0us"},
                                                           {9'999, "9.9us"},
                                                           {17'400, "17us"},
                                                           {999'999, "999us"},
                                                           {1 * kMs, "1.0ms"},
                                                           {40 * kMs, "40ms"},
                                                           {2'344 * kMs, "2344ms"},
                                                           {9'999 * kMs, "9999ms"},
                                                           {12'340 * kMs, "12.3s"},
                                                           {599'900 * kMs, "599.9s"},
                                                           {750'000 * kMs, "12m30s"},
                                                           {36'000'000 * kMs, "10h00m"}};
    for (const auto &[ns, text] : cases) EXPECT_EQ(short_duration(ns), text);
}

TEST(RenderTable, AlignsByWhatIsSeenNotByBytes) {
    TextTable table({{"N", TextTable::Align::right}, {"NAME"}, {"PATH"}});
    table.add_row({"1", "\xc3\xa9t\xc3\xa9", "/a"});
    table.add_row({"100", "x", "/b"});
    std::string out;
    table.append_to(out, "  ");
    EXPECT_EQ(out, "    N  NAME  PATH\n    1  \xc3\xa9t\xc3\xa9   /a\n  100  x     /b\n");
}

TEST(RenderEscape, ShowsWhatIsNotTextAndKeepsWhatIs) {
    const std::pair<std::string, std::string> cases[] = {{"/tmp/a b", "/tmp/a b"},
                                                         {"\xe6\x97\xa5\xe6\x9c\xac", "\xe6\x97\xa5\xe6\x9c\xac"},
                                                         {"a\\n", "a\\n"},
                                                         {"\r\n\t", "\\r\\n\\t"},
                                                         {"\x7f", "\\x7f"},
                                                         {"\xc2\x9b"
                                                          "31m",
                                                          "\\u{009b}31m"},
                                                         {"\xc0\x80", "\\xc0\\x80"},
                                                         {"\xed\xa0\x80", "\\xed\\xa0\\x80"},
                                                         {"\xe2\x82", "\\xe2\\x82"},
                                                         {std::string("\0x", 2), "\\x00x"}};
    for (const auto &[raw, shown] : cases) EXPECT_EQ(terminal_text(raw), shown);
}

}  // namespace
}  // namespace planloop::analysis
