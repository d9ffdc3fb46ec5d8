#include <gtest/gtest.h>

#include <iostream>
#include <map>
#include <random>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "analysis/export/format.h"
#include "tests/support/chaos.h"
#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Scene;
using wire::Mode;

// A format for tests: a line for each thing that an exporter is told.
class Plain : public Exporter {
  public:
    explicit Plain(const Write &write) : write_(write) {}
    void acquisition(const Acquisition &taken) override {
        write_("acquisition " + taken.call.lock + ' ' + std::to_string(taken.call.wait_ns) + ' ' +
               std::to_string(taken.hold_ns) + '\n');
    }
    void vain_wait(const TimelineEntry &wait) override {
        write_("vain " + wait.lock + ' ' + std::to_string(wait.wait_ns) + " 0\n");
    }
    void finish(const Report & /*report*/) override { write_("end\n"); }

  private:
    const Write &write_;
};
constexpr Format kPlain{
    "plain", "",    "",
    false,   false, [](const Write &write) -> std::unique_ptr<Exporter> { return std::make_unique<Plain>(write); }};

struct Exported {
    Report report;
    std::string text;
};

Exported exported(const Scene &scene, const Format &format) {
    test::VectorSource source = scene.source;
    Exported out;
    out.report = export_session(source, {}, format, {}, [&](std::string_view piece) { out.text += piece; });
    return out;
}

std::vector<std::string> lines_of(const std::string &text) {
    std::vector<std::string> lines;
    std::istringstream in(text);
    for (std::string line; std::getline(in, line);) lines.push_back(line);
    return lines;
}

Scene two_processes() {
    Scene scene;
    scene.file(1, "/tmp/a", 1001);
    const Actor one = scene.process(101, "x"), two = scene.process(102, "y");
    scene.lock(one, {.description = 1});
    const std::uint64_t waits = scene.at(100).request(two, {.description = 2});
    scene.at(1'100).unlock(one, {.description = 1});
    scene.at(1'200).acquired(waits);
    return scene;
}

TEST(Export, WhatAnExporterIsToldAddsUpToTheReportForAnyInput) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    for (unsigned seed = first; seed < first + 100; ++seed) {
        const Exported out = exported(test::chaos(seed), kPlain);
        std::map<std::string, std::int64_t> wait, hold;
        std::map<std::string, std::uint64_t> acquisitions;
        for (const std::string &line : lines_of(out.text)) {
            std::istringstream words(line);
            std::string kind, lock;
            std::int64_t wait_ns = 0, hold_ns = 0;
            if (!(words >> kind >> lock >> wait_ns >> hold_ns)) continue;
            wait[lock] += wait_ns;
            hold[lock] += hold_ns;
            if (kind == "acquisition") ++acquisitions[lock];
        }
        for (const LockRow &row : out.report.locks) {
            EXPECT_EQ(wait[row.id], row.wait.total) << "seed " << seed << ' ' << row.id;
            EXPECT_EQ(hold[row.id], row.hold.total) << "seed " << seed << ' ' << row.id;
            EXPECT_EQ(acquisitions[row.id], row.acquisitions) << "seed " << seed << ' ' << row.id;
        }
        EXPECT_TRUE(out.text.ends_with("end\n"));
    }
}

TEST(Export, EveryFormatTakesAnyInputAndGivesTheSameEachTime) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    for (const Format &format : formats()) {
        for (unsigned seed = first; seed < first + 20; ++seed) {
            const Scene scene = test::chaos(seed);
            const std::string text = exported(scene, format).text;
            EXPECT_FALSE(text.empty()) << format.name << " seed " << seed;
            EXPECT_EQ(text, exported(scene, format).text) << format.name << " seed " << seed;
        }
    }
}

TEST(Export, NamesAreFoundAndOthersAreNot) {
    for (const Format &format : formats()) EXPECT_EQ(find_format(format.name), &format);
    EXPECT_EQ(find_format("plain"), nullptr);
    EXPECT_EQ(find_format(""), nullptr);
}

TEST(Export, CsvHasALineOfNamesAndOneForEachAcquisition) {
    const std::vector<std::string> lines = lines_of(exported(two_processes(), *find_format("csv")).text);
    ASSERT_EQ(lines.size(), 3u);
    EXPECT_EQ(lines[0].substr(0, 41), "lock_entry_id,trace_id,operation,process,");
    EXPECT_EQ(lines[1],
              R"("0000000000000001","tr_101","","x",101,101,"flock:fe:01:1001","flock","/tmp/a","exclusive",0,0,)"
              R"(2027-01-15T08:00:00.000002Z,2027-01-15T08:00:00.000003Z,2027-01-15T08:00:00.001100Z,)"
              R"(1800000000000003000,1000,1097000,"unlock",true,1,false,"",,,,0,"","",,"","x --test")");
    EXPECT_EQ(lines[2],
              R"("0000000000000002","tr_102","","y",102,102,"flock:fe:01:1001","flock","/tmp/a","exclusive",0,0,)"
              R"(2027-01-15T08:00:00.000100Z,2027-01-15T08:00:00.001200Z,,)"
              R"(1800000000001200000,1100000,0,"open",false,1,true,"x",101,101,1000000,1,"","",,"","y --test")");
}

TEST(Export, CsvQuotesAndJsonEscapesWhatProgramsCallThemselves) {
    Scene scene;
    scene.file(1, "/tmp/\"a\n,\xff", 1001);
    scene.lock(scene.process(101, "x"), {});
    EXPECT_NE(exported(scene, *find_format("csv")).text.find("\"/tmp/\"\"a\n,\xef\xbf\xbd\""), std::string::npos);
    EXPECT_NE(exported(scene, *find_format("jsonl")).text.find(R"("path":"/tmp/\"a\n,)"), std::string::npos);
}

TEST(Export, PerfettoHasTheSpansThatOperationsRecorded) {
    Scene scene = two_processes();
    SessionRecords records;
    RecordedTrace trace;
    trace.trace_id = "tr_101";
    trace.pid = 101;
    trace.process = "x";
    for (const std::int64_t length : {5'000'000, 2'000'000, 2'000'000}) {
        RecordedSpan span;
        span.name = "span of " + std::to_string(length);
        span.begin_utc_ns = Scene::kEpochNs;
        span.duration_ns = length;
        trace.spans.push_back(span);
    }
    records.traces.push_back(trace);
    test::VectorSource source = scene.source;
    std::string with, without = exported(scene, *find_format("perfetto")).text;
    export_session(source, {}, *find_format("perfetto"), records, [&](std::string_view piece) { with += piece; });
    EXPECT_NE(with.find("span of 5000000"), std::string::npos);
    EXPECT_GT(with.size(), without.size());
}

TEST(Export, OtlpPutsALocksOperationUnderTheRecordedOne) {
    Scene scene = two_processes();
    SessionRecords records;
    RecordedTrace trace;
    trace.trace_id = "tr_101";
    trace.pid = 101;
    RecordedSpan outer, inner;
    outer.name = "update";
    inner.name = "load_state";
    inner.parent = "update";
    inner.status = "error";
    inner.error = "no \"such\" file";
    trace.spans = {outer, inner};
    records.traces.push_back(trace);
    RecordedError error;
    error.trace_id = "tr_101";
    error.type = "std::runtime_error";
    records.errors.push_back(error);
    test::VectorSource source = scene.source;
    std::string text;
    export_session(source, {}, *find_format("otlp"), records, [&](std::string_view piece) { text += piece; });
    EXPECT_NE(text.find(R"("code":2,"message":"no \"such\" file")"), std::string::npos);
    EXPECT_NE(text.find(R"("exception.type","value":{"stringValue":"std::runtime_error"})"), std::string::npos);
}

}  // namespace
}  // namespace planloop::analysis
