// A lock convoy (Blasgen et al., "The convoy phenomenon", 1979): hand-over after hand-over finds a queue, while each
// holds the lock for a short time only. Nobody is slow; the queue keeps everybody waiting.
//
// Told of a lock when kHandovers acquisitions in a row found at least one more waiter behind them, and together waited
// kLeastRatio times as long as the holds between them lasted, for kLeastWaitNs in all. Why these: with two waiters in
// turn each waits for about one hold, with four for three, so from four times on it is the queue and not the holds
// which is long; 32 in a row are no burst at a start; and what costs less than a tenth of a second in all is not worth
// a word. One finding for each lock, of its longest convoy.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::uint64_t kHandovers = 32;
constexpr std::int64_t kLeastRatio = 4;
constexpr std::int64_t kLeastWaitNs = 100'000'000;
constexpr std::size_t kMostFindings = 100;

class ConvoyDetector : public Detector {
  public:
    using Detector::Detector;

    void request_done(Index index, const RequestEnd &end) override {
        const Request &request = model().requests[index];
        if (end.outcome != Outcome::acquired) return;
        const std::uint32_t queue = model().locks[request.lock].queue.waiting();  // this one still in it
        if (queue < 2 || !request.looked) {
            if (request.lock < states_.size()) finish_run(states_[request.lock]);
            return;
        }
        if (request.lock >= states_.size()) states_.resize(request.lock + 1);
        Run &run = states_[request.lock].now;
        if (run.handovers++ == 0) run.from_ns = end.t_ns;
        run.to_ns = end.t_ns;
        run.wait_ns += end.wait_ns;
        run.queue = std::max(run.queue, queue);
    }
    void hold_ended(Index index, const HoldEnd &end) override {
        const Hold &hold = model().holds[index];
        if (hold.lock >= states_.size() || states_[hold.lock].now.handovers == 0) return;
        states_[hold.lock].now.hold_ns += end.t_ns - hold.since_ns;
    }
    void finish(Report &report, const SourceNotes & /*notes*/) override {
        std::size_t told = 0;
        for (Index lock = 0; lock < states_.size() && told < kMostFindings; ++lock) {
            finish_run(states_[lock]);
            if (states_[lock].longest.handovers == 0) continue;
            report.findings.push_back(describe(lock, states_[lock], report.from_utc_ns));
            ++told;
        }
    }

  private:
    struct Run {
        std::uint64_t handovers = 0;
        std::int64_t from_ns = 0, to_ns = 0, wait_ns = 0, hold_ns = 0;
        std::uint32_t queue = 0;
    };
    struct State {
        Run now, longest;
        std::uint64_t times = 0;
    };

    static void finish_run(State &state) {
        const Run run = state.now;
        state.now = Run{};
        if (run.handovers < kHandovers || run.wait_ns < kLeastWaitNs || run.wait_ns < kLeastRatio * run.hold_ns) return;
        ++state.times;
        if (run.wait_ns > state.longest.wait_ns) state.longest = run;
    }
    Finding describe(Index lock, const State &state, std::int64_t from_utc_ns) const {
        const Run &run = state.longest;
        const auto count = static_cast<std::int64_t>(run.handovers);
        Finding finding;
        finding.kind = "convoy";
        finding.severity = Severity::info;
        finding.from_ns = run.from_ns - from_utc_ns;
        finding.to_ns = run.to_ns - from_utc_ns;
        finding.locks = {model().locks[lock].id};
        finding.summary = fmt::format(
            "{} acquisitions of {} in a row found a queue, of up to {}: each waited for {} on average, for holds of {} "
            "on average (a lock convoy){}. The queue costs the time, not the work under the lock: take the lock "
            "less often, for more work at a time, or give each its own.",
            run.handovers, lock_words(model(), lock), run.queue, duration_words(run.wait_ns / count),
            duration_words(run.hold_ns / count),
            state.times > 1 ? fmt::format("; it was the longest of {}", state.times) : "");
        return finding;
    }

    std::vector<State> states_;  // by lock
};

}  // namespace

std::unique_ptr<Detector> make_convoy(const Model &model) {
    return std::make_unique<ConvoyDetector>(model);
}

}  // namespace planloop::analysis
