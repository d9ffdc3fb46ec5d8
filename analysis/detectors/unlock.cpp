// Unlocks of what was not held. Harmless to the kernel, and often a sign of a lock that was lost before: to a close,
// a failed conversion, or another process that shares the descriptor.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

class UnlockWithoutLock : public Detector {
  public:
    using Detector::Detector;

    void nothing_unlocked(Index lock, const Event &event) override {
        Found &found = by_lock_[lock];
        if (found.times++ > 0) return;
        found.t_ns = event.t_ns;
        found.image = event.process;
        found.pid = event.pid;
        found.tid = event.tid;
    }

    void finish(Report &report, const SourceNotes &notes) override {
        // In a flight recorder the lock calls before are mostly just overwritten.
        if (notes.overwritten) return;
        for (const auto &[lock, found] : by_lock_) {
            Finding finding;
            finding.kind = "unlock_without_lock";
            finding.severity = Severity::info;
            finding.certainty = Certainty::likely;  // what was locked before the recording began is not known here
            finding.from_ns = finding.to_ns = found.t_ns - report.from_utc_ns;
            finding.locks.push_back(model().locks[lock].id);
            finding.participants.push_back(participant_of(model(), found.image, found.pid, found.tid));
            finding.summary = fmt::format("{} unlocked {} without holding it",
                                          process_words(model(), found.image, found.pid), lock_words(model(), lock));
            if (found.times > 1) finding.summary += fmt::format(" (the first of {} times)", found.times);
            finding.summary +=
                ". Nothing happens then, but it may believe in a lock that it has lost or never had: look where it "
                "took it, and whether that call succeeded.";
            report.findings.push_back(std::move(finding));
        }
    }

  private:
    struct Found {
        std::uint64_t times = 0;
        std::int64_t t_ns = 0;
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
    };
    std::map<Index, Found> by_lock_;
};

}  // namespace

std::unique_ptr<Detector> make_unlock_without_lock(const Model &model) {
    return std::make_unique<UnlockWithoutLock>(model);
}

}  // namespace planloop::analysis
