#include "analysis/passes.h"

#include <gtest/gtest.h>

#include <iostream>
#include <random>
#include <set>
#include <string>

#include "analysis/render/json.h"
#include "analysis/render/text.h"
#include "tests/support/chaos.h"

namespace planloop::analysis {
namespace {

const char *const kWhy = "Events of this recording were lost, so it is only possible.";

// What events that are missing cannot make untrue.
const std::set<std::string> kSure{"kernel_refused", "long_wait", "lost_events", "not_traced"};

TEST(Passes, LostOrTornEventsMakeWhatTheyCouldOverturnPossibleAndItSaysSo) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    std::set<std::string> kinds;
    for (unsigned seed = first; seed < first + 100; ++seed) {
        test::Scene scene = test::chaos(seed);
        for (const int how : {0, 1, 2}) {
            SourceNotes notes;
            if (how == 0) notes.dropped = 1;
            if (how == 1) notes.torn = 1;
            if (how == 2) notes.overwritten = true;
            scene.source.source_notes = notes;
            const test::Outcome outcome = scene.play();
            for (const Finding &finding : outcome.report.findings) {
                const bool sure = kSure.count(finding.kind) != 0;
                EXPECT_TRUE(sure || finding.certainty == Certainty::possible) << finding.kind << " seed " << seed;
                EXPECT_EQ(finding.summary.find(kWhy) == std::string::npos, sure) << finding.summary << " seed " << seed;
                kinds.insert(finding.kind);
            }
        }
        scene.source.source_notes = {};
        for (const Finding &finding : scene.play().report.findings)
            EXPECT_EQ(finding.summary.find(kWhy), std::string::npos) << "seed " << seed;
    }
    for (const char *kind : {"deadlock", "lock_order_inversion", "killed_while_holding"})
        EXPECT_EQ(kinds.count(kind), 1u) << kind;
}

TEST(Passes, TheSameInputGivesTheSameReportByteForByte) {
    const unsigned first = std::random_device{}();
    std::cout << "seed " << first << '\n';
    for (unsigned seed = first; seed < first + 50; ++seed) {
        std::set<std::string> json, text;
        for (int i = 0; i < 2; ++i) {
            const test::Outcome outcome = test::chaos(seed).play();
            std::string written = json_before_timeline(outcome.report);
            for (const TimelineEntry &line : outcome.lines) append_json(written, line);
            json.insert(written + json_after_timeline(outcome.report));
            text.insert(render_text(outcome.report, {}));
        }
        EXPECT_EQ(json.size(), 1u) << "seed " << seed;
        EXPECT_EQ(text.size(), 1u) << "seed " << seed;
    }
}

}  // namespace
}  // namespace planloop::analysis
