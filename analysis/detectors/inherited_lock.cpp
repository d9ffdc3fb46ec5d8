// Locks that children hold on to after the process that they have them from is done: a flock or OFD lock belongs to the
// open file description, which every child inherits (fork(2), flock(2)), so a forgotten background job keeps everybody
// out.
//
// Silent when those who remain had the description before: flock(1) takes the lock of a shell and ends at once.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <unordered_map>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostFindings = 1'000;
constexpr int kGenerations = 8;

class InheritedLock : public Detector {
  public:
    using Detector::Detector;

    void process_ended(Index index, const ProcessEnd &end) override {
        const Process &process = model().table.process(index);
        for (const Descriptor &descriptor : process.descriptors) {
            const Description &description = model().table.description(descriptor.description);
            if (description.owned.empty() || !only_descendants_remain(index, description)) continue;
            for (const Index at : description.owned)
                for (const RangeMap::Segment &segment : model().ranges[at].map.segments())
                    note(model().holds[segment.hold], process, description, end);
        }
    }
    void blocked(Index index) override {
        if (open_.empty()) return;
        model().for_conflicts(model().requests[index], [&](Index hold) {
            const auto at = open_.find(model().holds[hold].entry);
            if (at != open_.end()) found_[at->second].kept_waiting = true;
        });
    }
    void hold_ended(Index index, const HoldEnd &end) override {
        const auto at = open_.find(model().holds[index].entry);
        if (at == open_.end()) return;
        found_[at->second].to_ns = end.t_ns;
        open_.erase(at);
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const Found &found : found_) report.findings.push_back(describe(found, report.from_utc_ns));
        if (not_listed_ > 0)
            report.notes.push_back(fmt::format("{} further inherited locks are not listed", not_listed_));
    }

  private:
    struct Someone {
        std::uint32_t image = 0;
        std::int32_t pid = 0;
    };
    struct Found {
        Index lock = kNone;
        std::int64_t from_ns = 0, to_ns = -1;
        Someone parent;
        std::vector<Someone> heirs;
        bool kept_waiting = false;
        EndCertainty certainty = EndCertainty::exact;
    };

    bool descends(Index process, Index from) const {
        const std::int32_t ancestor = model().table.process(from).pid;
        for (int i = 0; i < kGenerations && process != kNone; ++i) {
            const std::int32_t parent = model().table.process(process).parent_pid;
            if (parent == ancestor) return true;
            process = parent > 0 ? model().table.find_pid(parent) : kNone;
        }
        return false;
    }
    bool only_descendants_remain(Index process, const Description &description) const {
        if (description.sharers.size() < 2) return false;
        return std::all_of(description.sharers.begin(), description.sharers.end(),
                           [&](const Description::Sharer &sharer) {
                               return sharer.process == process || descends(sharer.process, process);
                           });
    }

    void note(const Hold &hold, const Process &parent, const Description &description, const ProcessEnd &end) {
        if (open_.count(hold.entry) != 0) return;
        if (found_.size() == kMostFindings) {
            ++not_listed_;
            return;
        }
        Found found;
        found.lock = hold.lock;
        found.from_ns = end.t_ns;
        found.parent = {parent.name_image, parent.pid};
        found.certainty = end.certainty;
        for (const Description::Sharer &sharer : description.sharers) {
            const Process &heir = model().table.process(sharer.process);
            if (heir.pid != parent.pid) found.heirs.push_back({heir.name_image, heir.pid});
        }
        std::sort(found.heirs.begin(), found.heirs.end(),
                  [](const Someone &a, const Someone &b) { return a.pid < b.pid; });
        const std::vector<Index> &waiters = model().locks.domain(model().locks[hold.lock].domain).waiters;
        found.kept_waiting = std::any_of(waiters.begin(), waiters.end(), [&](Index at) {
            const Request &request = model().requests[at];
            return request.lock == hold.lock && request.blocking && request.obstacles > 0;
        });
        open_.emplace(hold.entry, found_.size());
        found_.push_back(std::move(found));
    }

    Finding describe(const Found &found, std::int64_t from_utc_ns) const {
        Finding finding;
        finding.kind = "inherited_lock";
        // Nobody was kept waiting: it may be meant so, as by a program that becomes a daemon.
        finding.severity = found.kept_waiting ? Severity::warning : Severity::info;
        if (found.certainty == EndCertainty::approximate) finding.certainty = Certainty::likely;
        finding.from_ns = found.from_ns - from_utc_ns;
        finding.to_ns = found.to_ns < 0 ? -1 : found.to_ns - from_utc_ns;
        const std::string &id = model().locks[found.lock].id;
        finding.locks.push_back(id);
        std::vector<std::string> names;
        for (const Someone &heir : found.heirs) {
            finding.participants.push_back(participant_of(model(), heir.image, heir.pid, heir.pid));
            finding.participants.back().holds.push_back(id);
            names.push_back(process_words(model(), heir.image, heir.pid));
        }
        finding.summary =
            fmt::format("{} ended, but the lock on {} that it had did not: its {} {} inherited the open file",
                        process_words(model(), found.parent.image, found.parent.pid), lock_words(model(), found.lock),
                        names.size() > 1 ? "children" : "child", list_words(names));
        if (found.to_ns < 0)
            finding.summary += fmt::format(" and {} it still", names.size() > 1 ? "hold" : "holds");
        else
            finding.summary += fmt::format(" and held it for another {}", duration_words(found.to_ns - found.from_ns));
        finding.summary += found.kept_waiting ? ", which kept others waiting" : "";
        finding.summary +=
            ". If that is not meant, unlock before the parent ends, close the descriptor in the child (in a shell: "
            "command 9>&-), or open the lock file with O_CLOEXEC.";
        return finding;
    }

    std::vector<Found> found_;
    std::unordered_map<std::uint64_t, std::size_t> open_;  // lock call to place among found_
    std::uint64_t not_listed_ = 0;
};

}  // namespace

std::unique_ptr<Detector> make_inherited_lock(const Model &model) {
    return std::make_unique<InheritedLock>(model);
}

}  // namespace planloop::analysis
