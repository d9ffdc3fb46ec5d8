// Events that could not be recorded or read back: how far the rest can be trusted.
#include <fmt/format.h>

#include <memory>

#include "analysis/detector.h"

namespace planloop::analysis {
namespace {

class LostEvents : public Detector {
  public:
    using Detector::Detector;

    void finish(Report &report, const SourceNotes &notes) override {
        if (notes.dropped == 0 && notes.torn == 0) return;
        Finding finding;
        finding.kind = "lost_events";
        finding.severity = Severity::warning;
        finding.from_ns = 0;
        finding.to_ns = report.to_utc_ns - report.from_utc_ns;
        if (notes.dropped > 0) finding.summary = fmt::format("{} events could not be recorded. ", notes.dropped);
        if (notes.torn > 0)
            finding.summary += fmt::format("{} events were begun and never finished by their writer. ", notes.torn);
        finding.summary +=
            "Holds and waits may be missing or seem longer than they were, and verdicts that rest on them "
            "are only possible. Where it was full, give the session more space or record less.";
        report.findings.push_back(std::move(finding));
    }
};

}  // namespace

std::unique_ptr<Detector> make_lost_events(const Model &model) {
    return std::make_unique<LostEvents>(model);
}

}  // namespace planloop::analysis
