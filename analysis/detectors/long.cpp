// Waits and holds over a threshold (AnalysisOptions), one finding for each lock: how many there were and the longest.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

struct Longest {
    std::uint64_t times = 0;
    std::int64_t from_ns = 0, to_ns = -1, ns = 0;
    std::uint32_t image = 0;
    std::int32_t pid = 0, tid = 0;
    Blame blamed;  // of a wait: who stood in its way longest

    // True when it is the longest so far.
    bool add(std::int64_t length_ns) {
        ++times;
        if (length_ns <= ns) return false;
        ns = length_ns;
        return true;
    }
};

class LongDetector : public Detector {
  public:
    using Detector::Detector;

  protected:
    Finding describe(const char *kind, Index lock, const Longest &longest, std::int64_t from_utc_ns) const {
        Finding finding;
        finding.kind = kind;
        finding.from_ns = longest.from_ns - from_utc_ns;
        finding.to_ns = longest.to_ns < 0 ? -1 : longest.to_ns - from_utc_ns;
        finding.locks.push_back(model().locks[lock].id);
        finding.participants.push_back(participant_of(model(), longest.image, longest.pid, longest.tid));
        return finding;
    }

    std::map<Index, Longest> by_lock_;
};

class LongWait : public LongDetector {
  public:
    using LongDetector::LongDetector;

    void request_done(Index index, const RequestEnd &end) override {
        if (end.wait_ns >= model().long_wait_ns) note(model().requests[index], end.t_ns, end.wait_ns, false);
    }
    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (Index lock = 0; lock < model().locks.size(); ++lock) {
            for (const Index at : model().locks.domain(model().locks[lock].domain).waiters) {
                const Request &request = model().requests[at];
                if (request.lock != lock || request.parked) continue;
                const std::int64_t wait_ns = report.to_utc_ns - request.call_ns;
                if (wait_ns >= model().long_wait_ns) note(request, report.to_utc_ns, wait_ns, true);
            }
        }
        for (const auto &[lock, longest] : by_lock_) {
            Finding finding = describe("long_wait", lock, longest, report.from_utc_ns);
            finding.participants.front().waits_for = model().locks[lock].id;
            std::string &text = finding.summary;
            text = fmt::format("{} {} {} for {}", thread_words(model(), longest.image, longest.pid, longest.tid),
                               longest.to_ns < 0 ? "has waited" : "waited", duration_words(longest.ns),
                               lock_words(model(), lock));
            if (longest.blamed.pid != 0) {
                const Blame &blamed = longest.blamed;
                finding.participants.front().waits_on.push_back(blamed.pid);
                text += fmt::format(", longest behind {}", thread_words(model(), blamed.image, blamed.pid, blamed.tid));
            }
            if (longest.times > 1) text += fmt::format("; it is the longest of {} such waits", longest.times);
            text += fmt::format(
                ". {} and more counts as long: look what the holder does meanwhile, and whether it "
                "must hold the lock for all of it.",
                duration_words(model().long_wait_ns));
            report.findings.push_back(std::move(finding));
        }
    }

  private:
    void note(const Request &request, std::int64_t now_ns, std::int64_t wait_ns, bool open) {
        Longest &longest = by_lock_[request.lock];
        if (!longest.add(wait_ns)) return;
        longest.from_ns = now_ns - wait_ns;
        longest.to_ns = open ? -1 : now_ns;
        longest.image = request.image;
        longest.pid = request.pid;
        longest.tid = request.tid;
        longest.blamed = Blame{};
        std::int64_t most_ns = -1;
        for (const Blame &blame : request.blame) {
            const std::int64_t ns = blame.ns + (open && blame.active > 0 ? now_ns - blame.since_ns : 0);
            if (ns > most_ns) longest.blamed = blame;
            most_ns = ns > most_ns ? ns : most_ns;
        }
    }
};

class LongHold : public LongDetector {
  public:
    using LongDetector::LongDetector;

    void hold_ended(Index index, const HoldEnd &end) override {
        const Hold &hold = model().holds[index];
        if (end.t_ns - hold.since_ns >= model().long_hold_ns) note(hold, end.t_ns, false);
    }
    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (Index lock = 0; lock < model().locks.size(); ++lock) {
            std::uint64_t last = 0;  // parts of one hold lie side by side
            for (const Index at : model().locks.domain(model().locks[lock].domain).owners) {
                for (const RangeMap::Segment &segment : model().ranges[at].map.segments()) {
                    const Hold &hold = model().holds[segment.hold];
                    if (hold.lock != lock || hold.entry == last) continue;
                    last = hold.entry;
                    if (report.to_utc_ns - hold.since_ns >= model().long_hold_ns) note(hold, report.to_utc_ns, true);
                }
            }
        }
        for (const auto &[lock, longest] : by_lock_) {
            Finding finding = describe("long_hold", lock, longest, report.from_utc_ns);
            // Many hold a lock for as long as they live, which is meant; whom it kept waiting, a wait tells.
            finding.severity = Severity::info;
            finding.participants.front().holds.push_back(model().locks[lock].id);
            std::string &text = finding.summary;
            text = fmt::format("{} {} {} for {}", thread_words(model(), longest.image, longest.pid, longest.tid),
                               longest.to_ns < 0 ? "has held" : "held", lock_words(model(), lock),
                               duration_words(longest.ns));
            if (longest.times > 1) text += fmt::format(", the longest of {} such holds", longest.times);
            text += fmt::format(". {} and more counts as long: nobody else could have that lock meanwhile.",
                                duration_words(model().long_hold_ns));
            report.findings.push_back(std::move(finding));
        }
    }

  private:
    void note(const Hold &hold, std::int64_t now_ns, bool open) {
        Longest &longest = by_lock_[hold.lock];
        if (!longest.add(now_ns - hold.since_ns)) return;
        longest.from_ns = hold.since_ns;
        longest.to_ns = open ? -1 : now_ns;
        longest.image = hold.image;
        longest.pid = hold.pid;
        longest.tid = hold.tid;
    }
};

}  // namespace

std::unique_ptr<Detector> make_long_wait(const Model &model) {
    return std::make_unique<LongWait>(model);
}
std::unique_ptr<Detector> make_long_hold(const Model &model) {
    return std::make_unique<LongHold>(model);
}

}  // namespace planloop::analysis
