#include "analysis/export/report_page.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "analysis/export/call_table.h"
#include "analysis/export/page_text.h"

namespace planloop::analysis {
namespace {

TimelineEntry entry_of(EventKind kind, std::string id, std::int64_t t_ns) {
    TimelineEntry entry;
    entry.kind = kind;
    entry.lock_entry_id = std::move(id);
    entry.t_ns = t_ns;
    entry.pid = entry.tid = 7;
    entry.process = "flock";
    entry.lock = "flock:fe:00:1";
    entry.path = "/tmp/a";
    entry.mode = wire::Mode::exclusive;
    return entry;
}

void add_call(CallTable &table, const std::string &id, std::int64_t begin_ns, std::int64_t wait_ns,
              std::int64_t hold_ns) {
    table.add(entry_of(EventKind::lock_requested, id, begin_ns));
    TimelineEntry acquired = entry_of(EventKind::lock_acquired, id, begin_ns + wait_ns);
    acquired.wait_ns = wait_ns;
    table.add(acquired);
    TimelineEntry released = entry_of(EventKind::lock_released, id, begin_ns + wait_ns + hold_ns);
    released.hold_ns = hold_ns;
    released.reason = "unlock";
    table.add(released);
}

TEST(CallTable, JoinsRequestAcquisitionAndReleaseOfOneCall) {
    CallTable table(10);
    add_call(table, "1", 100, 20, 300);
    table.finish(1'000);
    ASSERT_EQ(table.calls().size(), 1u);
    const Call &call = table.calls()[0];
    EXPECT_EQ(call.begin_ns, 100);
    EXPECT_EQ(call.wait_ns, 20);
    EXPECT_EQ(call.hold_ns, 300);
    EXPECT_EQ(call.outcome, CallOutcome::acquired);
    EXPECT_FALSE(call.open);
    EXPECT_EQ(table.texts()[call.reason], "unlock");
}

TEST(CallTable, WhatIsOpenLastsUntilTheEnd) {
    CallTable table(10);
    table.add(entry_of(EventKind::lock_requested, "a", 100));
    table.add(entry_of(EventKind::lock_requested, "b", 200));
    table.add(entry_of(EventKind::lock_acquired, "b", 200));
    table.finish(1'000);
    ASSERT_EQ(table.calls().size(), 2u);
    EXPECT_EQ(table.calls()[0].outcome, CallOutcome::waiting);
    EXPECT_EQ(table.calls()[0].wait_ns, 900);
    EXPECT_TRUE(table.calls()[0].open);
    EXPECT_EQ(table.calls()[1].hold_ns, 800);
    EXPECT_TRUE(table.calls()[1].open);
}

TEST(CallTable, AnUnlockOfAPartLeavesTheRestHeld) {
    CallTable table(10);
    table.add(entry_of(EventKind::lock_requested, "a", 0));
    table.add(entry_of(EventKind::lock_acquired, "a", 0));
    TimelineEntry part = entry_of(EventKind::lock_released, "a", 100);
    part.len = 10;
    table.add(part);
    TimelineEntry rest = entry_of(EventKind::lock_released, "a", 500);
    rest.start = 10;
    table.add(rest);
    table.finish(1'000);
    ASSERT_EQ(table.calls().size(), 1u);
    EXPECT_EQ(table.calls()[0].hold_ns, 500);
}

TEST(CallTable, LeavesOutTheShortestAndSaysSo) {
    CallTable table(100);
    for (std::int64_t i = 0; i < 1'000; ++i) add_call(table, std::to_string(i), i * 10'000, i, 0);
    table.finish(20'000'000);
    EXPECT_LE(table.calls().size(), 100u);
    EXPECT_EQ(table.calls().size() + table.left_out(), 1'000u);
    for (const Call &call : table.calls()) EXPECT_GE(call.wait_ns, table.longest_left_out_ns());
    EXPECT_EQ(table.processes().at(7).acquisitions, 1'000u);  // sums count them all
    EXPECT_EQ(table.calls().back().wait_ns, 999);
}

struct Hostile {
    std::string_view text, html, script;
};

TEST(PageText, NothingBecomesMarkup) {
    const Hostile cases[] = {
        {"plain", "plain", "\"plain\""},
        {"<b>&\"'", "&lt;b&gt;&amp;&quot;&#39;", "\"\\u003cb>&\\\"'\""},
        {"</script><!--", "&lt;/script&gt;&lt;!--", "\"\\u003c/script>\\u003c!--\""},
        {"a\nb", "a\\nb", "\"a\\\\nb\""},
        {"\xff", "\\xff", "\"\\\\xff\""},
    };
    for (const Hostile &one : cases) {
        EXPECT_EQ(html_text(one.text), one.html);
        std::string script;
        append_script_string(script, one.text);
        EXPECT_EQ(script, one.script);
    }
}

TEST(PageText, Base64IsThatOfRfc4648) {
    const std::pair<std::string_view, std::string_view> cases[] = {
        {"", ""}, {"f", "Zg=="}, {"fo", "Zm8="}, {"foo", "Zm9v"}, {"foob", "Zm9vYg=="}, {"\xff\xfe", "//4="}};
    for (const auto &[bytes, text] : cases) {
        std::string out;
        append_base64(out, bytes);
        EXPECT_EQ(out, text);
    }
}

TEST(ReportPage, AHostileNameIsWholeInTheTextAndNowhereMarkup) {
    ReportPage page({});
    TimelineEntry entry = entry_of(EventKind::lock_requested, "1", 5);
    entry.process = "<script>";
    entry.path = "/tmp/</script>";
    page.add(entry);
    Report report;
    report.session = "\"><script>alert(1)</script>";
    report.events = 1;
    report.to_utc_ns = 10;
    LockRow &lock = report.locks.emplace_back();
    lock.id = "flock:fe:00:1";
    lock.path = "/tmp/</script>";
    std::string html;
    page.write(report, {}, [&](std::string_view part) {
        html += part;
        return true;
    });
    std::size_t scripts = 0;
    for (std::size_t at = html.find("<script"); at != std::string::npos; at = html.find("<script", at + 1)) ++scripts;
    EXPECT_EQ(scripts, 2u);  // the data and the page's own
    EXPECT_NE(html.find("&quot;&gt;&lt;script&gt;alert(1)&lt;/script&gt;"), std::string::npos);
    EXPECT_NE(html.find("default-src 'none'"), std::string::npos);
}

TEST(ReportPage, SaysWhereAParticipantAsked) {
    ReportPage page({});
    Report report;
    Finding &finding = report.findings.emplace_back();
    finding.kind = "deadlock";
    Participant &participant = finding.participants.emplace_back();
    participant.process = "bank";
    participant.pid = 7;
    participant.waits_for = "flock:fe:00:1";
    participant.asked_at.function = "transfer()";
    participant.asked_at.file = "bank.cpp";
    participant.asked_at.line = 40;
    participant.asked_at.module = "/usr/bin/bank";
    std::string html;
    page.write(report, {}, [&](std::string_view part) {
        html += part;
        return true;
    });
    EXPECT_NE(html.find("bank 7 waits for flock:fe:00:1, asked in transfer() at bank.cpp:40"), std::string::npos);
}

TEST(ReportPage, JoinsSpansAndErrorsByTraceId) {
    ReportPage page({});
    Report report;
    report.from_utc_ns = 1'000;
    SessionRecords records;
    RecordedTrace &trace = records.traces.emplace_back();
    trace.trace_id = "tr_1";
    trace.operation = "update";
    for (const auto &[name, id, parent] : {std::tuple("update", 1u, 0u), {"save", 2u, 1u}, {"fsync", 3u, 2u}}) {
        RecordedSpan &span = trace.spans.emplace_back();
        span.name = name;
        span.id = id;
        span.parent_id = parent;
        span.begin_utc_ns = 1'000 + id;
        span.duration_ns = 5;
        span.pid = span.tid = 7;
    }
    records.errors.push_back(
        {"tr_1", "tr_1", "update", "std::out_of_range", "no <such> task", "apply", "planloop", 2'000, 7});
    std::string html;
    page.write(report, records, [&](std::string_view part) {
        html += part;
        return true;
    });
    EXPECT_NE(html.find(R"([7,7,1,5,0,"update","ok"],[7,7,2,5,1,"save","ok"],[7,7,3,5,2,"fsync","ok"])"),
              std::string::npos);
    EXPECT_NE(html.find("no &lt;such&gt; task"), std::string::npos);
    EXPECT_NE(html.find("planloop dev trace tr_1"), std::string::npos);
}

TEST(ReportPage, IsTheSameForTheSameRecording) {
    const auto make = [] {
        ReportPage page({});
        page.add(entry_of(EventKind::lock_requested, "1", 5));
        std::string html;
        page.write(Report(), {}, [&](std::string_view part) {
            html += part;
            return true;
        });
        return html;
    };
    EXPECT_EQ(make(), make());
}

}  // namespace
}  // namespace planloop::analysis
