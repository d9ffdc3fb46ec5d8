// Processes that were killed while they held locks: what the locks protect may be half done.
#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostFindings = 1'000;

class KilledWhileHolding : public Detector {
  public:
    using Detector::Detector;

    void process_ended(Index index, const ProcessEnd &end) override {
        if (end.reason != Reason::killed) return;
        const Process &process = model().table.process(index);
        std::vector<Index> locks, kept;
        const auto look = [&](const std::vector<Index> &owned, bool shared) {
            for (const Index at : owned)
                for (const RangeMap::Segment &segment : model().ranges[at].map.segments())
                    add(shared ? kept : locks, model().holds[segment.hold].lock);
        };
        look(process.owned, false);
        for (const Index thread : process.threads) look(model().table.thread(thread).owned, false);
        for (const Descriptor &descriptor : process.descriptors) {
            const Description &description = model().table.description(descriptor.description);
            look(description.owned, description.sharers.size() > 1);
        }
        // Holds that the next owner's acquisition has already proved over. Where it shares that owner's description, it
        // seems to hold the lock again, and does not.
        for (const Undecided &one : process.undecided)
            if (end.t_ns - one.t_ns <= kSoonNs) add(locks, one.lock);
        const auto freed = [&](Index lock) { return std::find(locks.begin(), locks.end(), lock) != locks.end(); };
        kept.erase(std::remove_if(kept.begin(), kept.end(), freed), kept.end());
        if (locks.empty() && kept.empty()) return;
        if (found_.size() == kMostFindings) {
            ++not_listed_;
            return;
        }
        found_.push_back({process.pid, process.name_image, end, std::move(locks), std::move(kept)});
    }

    void finish(Report &report, const SourceNotes &notes) override {
        const bool lost = notes.incomplete();
        for (const Found &found : found_) report.findings.push_back(describe(found, report.from_utc_ns, lost));
        if (not_listed_ > 0)
            report.notes.push_back(
                fmt::format("{} further processes killed while holding are not listed", not_listed_));
    }

  private:
    static constexpr std::int64_t kSoonNs = 1'000'000'000;
    struct Found {
        std::int32_t pid;
        std::uint32_t image;
        ProcessEnd end;
        std::vector<Index> locks, kept;  // kept: others share them and hold on
    };

    static void add(std::vector<Index> &list, Index lock) {
        if (std::find(list.begin(), list.end(), lock) == list.end()) list.push_back(lock);
    }

    Finding describe(const Found &found, std::int64_t from_utc_ns, bool lost) const {
        Finding finding;
        finding.kind = "killed_while_holding";
        // What others share and still hold protects as before.
        finding.severity = found.locks.empty() ? Severity::info : Severity::warning;
        finding.from_ns = finding.to_ns = found.end.t_ns - from_utc_ns;
        Participant participant = participant_of(model(), found.image, found.pid, found.pid);
        std::vector<std::string> freed, kept;
        for (const Index lock : found.locks) freed.push_back(lock_words(model(), lock));
        for (const Index lock : found.kept) kept.push_back(lock_words(model(), lock));
        for (const auto *list : {&found.locks, &found.kept}) {
            for (const Index lock : *list) {
                participant.holds.push_back(model().locks[lock].id);
                finding.locks.push_back(model().locks[lock].id);
            }
        }
        finding.participants.push_back(std::move(participant));
        std::string &text = finding.summary;
        const std::string name = process_words(model(), found.image, found.pid);
        if (found.end.status < 0) {
            // Its release and its exit may be among what was lost.
            finding.certainty = lost ? Certainty::possible : Certainty::likely;
            text = fmt::format("{} ended without {}, so it was {} killed", name,
                               lost ? "a recorded exit, and events were lost" : "going through exit",
                               lost ? "possibly" : "probably");
        } else {
            text = fmt::format("{} {}", name, death_words(found.end.status));
        }
        if (!freed.empty())
            text += fmt::format(
                " while it held {}. The kernel gave the lock to the next in line, but what it protects "
                "may be half done: check it, and let programs repair or replace files atomically",
                list_words(freed));
        if (!kept.empty())
            text += fmt::format("{} {}, which other processes share and go on holding",
                                freed.empty() ? " while it held" : ". It also held", list_words(kept));
        text += '.';
        return finding;
    }

    std::vector<Found> found_;
    std::uint64_t not_listed_ = 0;
};

}  // namespace

std::unique_ptr<Detector> make_killed_while_holding(const Model &model) {
    return std::make_unique<KilledWhileHolding>(model);
}

}  // namespace planloop::analysis
