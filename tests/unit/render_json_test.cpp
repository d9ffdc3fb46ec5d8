#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <cerrno>
#include <nlohmann/json.hpp>
#include <random>
#include <set>

#include "analysis/render/json.h"
#include "analysis/render/spill.h"

namespace planloop::analysis {
namespace {

using nlohmann::json;

std::set<std::string> keys_of(const json &object) {
    std::set<std::string> keys;
    for (const auto &[key, value] : object.items()) keys.insert(key);
    return keys;
}

bool has_all(const json &object, const std::set<std::string> &wanted) {
    const std::set<std::string> keys = keys_of(object);
    return std::includes(keys.begin(), keys.end(), wanted.begin(), wanted.end());
}

json parsed(const TimelineEntry &entry) {
    std::string out;
    append_json(out, entry);
    return json::parse(out);
}

json parsed(const Report &report, const std::string &timeline = {}) {
    return json::parse(json_before_timeline(report) + timeline + json_after_timeline(report));
}

Report full_report() {
    Report report;
    report.session = "x";
    report.from_utc_ns = 1'795'334'400'000'000'001;
    report.to_utc_ns = report.from_utc_ns + 5;
    report.processes = 3;
    report.threads = 4;
    report.events = 12;
    report.dropped = 1;
    LockRow row;
    row.id = "posix:fe:01:1234";
    row.family = wire::Family::posix;
    row.path = "/tmp/a";
    row.wait = {100, 60, 40, 60};
    report.locks = {row};
    HeldLock held;
    held.lock = row.id;
    held.mode = wire::Mode::shared;
    held.pid = 8;
    held.since_ns = 3;
    held.acquired_by = {7, "flock"};
    held.holders = {{8, "bash"}};
    report.held = {held};
    WaitingRequest waiting;
    waiting.lock = row.id;
    waiting.mode = wire::Mode::exclusive;
    waiting.blocked_by = {{8, 8, 2, "bash"}};
    report.waiting = {waiting};
    Finding finding;
    finding.kind = "deadlock";
    finding.severity = Severity::error;
    finding.certainty = Certainty::likely;
    finding.summary = "s";
    Participant &one = finding.participants.emplace_back();
    one.pid = 1;
    one.tid = 2;
    one.process = "perl";
    one.command_line = "perl x";
    one.trace_id = "tr_1";
    one.holds = {row.id};
    one.waits_for = "other";
    one.waits_on = {3, 4};
    one.wanted = {7, 1};
    one.held = {{0, 10}};
    one.asked_ns = 12;
    one.times = 2;
    one.asked_at = {"transfer", "bank.cpp", 40, "/bin/bank", 0x12f4, {}};
    one.holds_from = {{"", "", 0, "/bin/bank", 7, "replaced since"}};
    report.findings = {finding};
    report.notes = {"note"};
    return report;
}

TEST(RenderJson, ReportHasTheSchemasFields) {
    const json all = parsed(full_report());
    EXPECT_EQ(all["schema"], "planloop.locks/1");
    EXPECT_TRUE(has_all(all, {"schema", "session", "recorded", "locks", "timeline", "held", "waiting", "findings"}));
    EXPECT_EQ(all["recorded"], json::parse(R"({"from":"2026-11-22T08:00:00.000000001Z",
        "to":"2026-11-22T08:00:00.000000006Z","processes":3,"threads":4,"events":12,"dropped":1})"));
    EXPECT_EQ(all["locks"][0], json::parse(R"({"id":"posix:fe:01:1234","family":"posix","path":"/tmp/a",
        "acquisitions":0,"contended":0,"failed":0,
        "wait_ns":{"total":100,"max":60,"p50":40,"p99":60,"mean":0,"p90":0,"count":0},
        "hold_ns":{"total":0,"max":0,"p50":0,"p99":0,"mean":0,"p90":0,"count":0},
        "waited_ns":0,"queue":{"max":0,"mean":0,"from_ns":0,"step_ns":0,"steps":[]}})"));
    EXPECT_TRUE(has_all(all["blame"],
                        {"waits", "waited_ns", "unknown_ns", "handover_ns", "processes", "call_sites", "operations"}));
    EXPECT_TRUE(has_all(all, {"call_sites", "critical_path", "quantile_error"}));
    EXPECT_EQ(all["timeline"], json::array());
    EXPECT_TRUE(has_all(all["held"][0], {"lock", "mode", "pid", "tid", "process", "trace_id", "since_ns"}));
    EXPECT_EQ(all["held"][0]["acquired_by"]["pid"], 7);
    EXPECT_EQ(all["held"][0]["holders"][0]["pid"], 8);
    EXPECT_TRUE(has_all(all["waiting"][0], {"lock", "mode", "pid", "tid", "process", "trace_id", "since_ns"}));
    const json &finding = all["findings"][0];
    EXPECT_EQ(finding["severity"], "error");
    EXPECT_EQ(finding["certainty"], "likely");
    EXPECT_TRUE(finding["to_ns"].is_null());
    EXPECT_TRUE(finding["resolved_by"].is_null());
    EXPECT_EQ(finding["participants"][0]["holds"], json::array({"posix:fe:01:1234"}));
    EXPECT_EQ(finding["participants"][0]["waits_on"], json::array({3, 4}));
    EXPECT_EQ(finding["participants"][0]["waits_for"], "other");
    EXPECT_EQ(finding["participants"][0]["waits_for_range"], json::parse(R"({"start":7,"len":1})"));
    EXPECT_EQ(finding["participants"][0]["holds_ranges"], json::parse(R"([{"start":0,"len":10}])"));
    EXPECT_EQ(finding["participants"][0]["asked_ns"], 12);
    EXPECT_EQ(finding["participants"][0]["times"], 2);
    EXPECT_EQ(finding["participants"][0]["call_site"],
              json::parse(R"({"function":"transfer","file":"bank.cpp","line":40,"module":"/bin/bank","offset":4852})"));
    EXPECT_EQ(finding["participants"][0]["holds_from"][0],
              json::parse(R"({"function":null,"file":null,"line":null,"module":"/bin/bank","offset":7,
        "remark":"replaced since"})"));
}

TEST(RenderJson, EventsHaveTheFieldsOfTheirKind) {
    TimelineEntry entry;
    entry.kind = EventKind::lock_requested;
    entry.utc_ns = 1'795'334'402'350'123'456;
    entry.t_ns = 17;
    entry.mode = wire::Mode::exclusive;
    entry.start = ~std::uint64_t{0};
    json event = parsed(entry);
    EXPECT_TRUE(has_all(event, {"t_ns", "timestamp", "event", "trace_id", "operation", "lock_entry_id", "pid", "tid",
                                "process", "lock", "mode", "blocked_by"}));
    EXPECT_EQ(event["timestamp"], "2026-11-22T08:00:02.350123456Z");
    EXPECT_EQ(event["event"], "lock_requested");
    EXPECT_EQ(event["start"], ~std::uint64_t{0});
    EXPECT_FALSE(event.contains("wait_ns"));

    entry.kind = EventKind::lock_acquired;
    entry.wait_ns = 5;
    entry.blocked_by = {{2, 3, 4, "sh"}};
    event = parsed(entry);
    EXPECT_EQ(event["wait_ns"], 5);
    EXPECT_EQ(event["blocked_by"], json::parse(R"([{"pid":2,"tid":3,"ns":4,"process":"sh"}])"));
    EXPECT_FALSE(event.contains("errno"));

    entry.kind = EventKind::lock_failed;
    entry.error = EINTR;
    entry.tries = 9;
    event = parsed(entry);
    EXPECT_EQ(event["errno"], EINTR);
    EXPECT_EQ(event["tries"], 9);

    entry.kind = EventKind::lock_released;
    entry.hold_ns = 6;
    entry.reason = "killed";
    entry.certainty = EndCertainty::approximate;
    event = parsed(entry);
    EXPECT_EQ(event["hold_ns"], 6);
    EXPECT_EQ(event["reason"], "killed");
    EXPECT_EQ(event["certainty"], "approximate");
    EXPECT_FALSE(event.contains("wait_ns"));
}

TEST(RenderJson, AnyBytesInNamesGiveValidJson) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937 random(seed);
    for (int round = 0; round < 500; ++round) {
        TimelineEntry entry;
        entry.process.resize(random() % 40);
        for (char &c : entry.process) c = static_cast<char>(random());
        const json event = parsed(entry);  // throws when it is not valid
        Report report = full_report();
        report.session = report.locks[0].path = report.findings[0].summary = entry.process;
        EXPECT_EQ(parsed(report)["session"], event["process"]);
    }
}

TEST(RenderJson, TimelineStandsWhereTheSchemaWantsIt) {
    TimelineSpill spill(64);  // goes to a file after a few entries
    TimelineEntry entry;
    std::string row;
    for (int i = 0; i < 1000; ++i) {
        entry.pid = i;
        row = spill.empty() ? "" : ",";
        append_json(row, entry);
        spill.append(row);
    }
    std::string timeline;
    const Result<void> copied = spill.copy_to([&](std::string_view piece) {
        timeline += piece;
        return true;
    });
    ASSERT_TRUE(copied) << copied.error().message;
    const json all = parsed(full_report(), timeline);
    ASSERT_EQ(all["timeline"].size(), 1000U);
    for (int i = 0; i < 1000; ++i) EXPECT_EQ(all["timeline"][static_cast<std::size_t>(i)]["pid"], i);
}

TEST(TimelineSpill, StopsWhenTheReaderDoes) {
    TimelineSpill spill(8);
    for (int i = 0; i < 100'000; ++i) spill.append("0123456789");
    int pieces = 0;
    const Result<void> copied = spill.copy_to([&](std::string_view) { return ++pieces < 2; });
    EXPECT_TRUE(copied);
    EXPECT_EQ(pieces, 2);
}

TEST(TimelineSpill, SaysWhyItCannotKeepWhatItWasGiven) {
    rlimit before{};
    ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
    ASSERT_NE(::signal(SIGXFSZ, SIG_IGN), SIG_ERR);
    const rlimit nothing{0, before.rlim_max};
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &nothing), 0);
    TimelineSpill spill(8);
    spill.append("0123456789");
    const Result<void> copied = spill.copy_to([](std::string_view) { return true; });
    ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
    ASSERT_FALSE(copied);
    EXPECT_NE(copied.error().message.find("File too large"), std::string::npos) << copied.error().message;
}

}  // namespace
}  // namespace planloop::analysis
