// Starvation: a blocked call that others overtake again and again. The kernel wakes all that wait for a file lock and
// lets them race, so nothing keeps a late comer from being first each time.
//
// Told when calls that were made later got the lock kOvertaken times while this one, which they excluded, waited, and
// it waited for kLeastWaitNs at least. Why these: under contention everybody is overtaken a few times, and two calls of
// the same moment may be stamped in the wrong order, but not a hundred; and below a second nobody suffers from it. One
// finding for each lock, of the call that was overtaken most.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::uint64_t kOvertaken = 100;
constexpr std::int64_t kLeastWaitNs = 1'000'000'000;
constexpr std::size_t kMostNames = 4;  // of those that overtook
constexpr std::size_t kMostFindings = 100;

struct Overtaker {
    std::uint32_t image = 0;
    std::int32_t pid = 0;
    std::uint64_t times = 0;
};

class StarvationDetector : public Detector {
  public:
    using Detector::Detector;

    void request_done(Index index, const RequestEnd &end) override {
        const Request &request = model().requests[index];
        if (index < waiters_.size() && waiters_[index].entry == request.entry) end_wait(index, request, end.t_ns);
        if (end.outcome != Outcome::acquired) return;
        for (const Index at : model().locks.domain(request.domain).waiters) {
            const Request &other = model().requests[at];
            if (other.first > request.last || request.first > other.last || !exclude(other.mode, request.mode))
                continue;
            if (other.leads == kNone) {
                if (at != index) overtaken_if_later(at, request);
                continue;
            }
            for (const Crowd::Member &member : model().crowds[other.leads].members)  // in the order of their calls
                if (!overtaken_if_later(member.request, request)) break;
        }
    }
    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (Index index = 0; index < waiters_.size(); ++index) {
            const Waiter &waiter = waiters_[index];
            if (waiter.entry == 0 || model().requests[index].entry != waiter.entry) continue;
            end_wait(index, model().requests[index], model().now_ns);
        }
        for (std::size_t i = 0; i < std::min(worst_.size(), kMostFindings); ++i)
            report.findings.push_back(describe(worst_[i], report.from_utc_ns));
    }

  private:
    struct Waiter {  // by request, while its entry is the same
        std::uint64_t entry = 0, times = 0;
        std::vector<Overtaker> by;
    };
    struct Starved {
        Index lock = kNone;
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
        std::int64_t from_ns = 0, to_ns = 0;
        std::uint64_t times = 0, others = 0;
        std::vector<Overtaker> by;
    };

    bool overtaken_if_later(Index at, const Request &by) {
        const Request &other = model().requests[at];
        if (other.since_ns >= by.since_ns) return false;
        if (other.looked) overtaken(at, other, by);
        return true;
    }
    void overtaken(Index at, const Request &who, const Request &by) {
        if (at >= waiters_.size()) waiters_.resize(at + 1);
        Waiter &waiter = waiters_[at];
        if (waiter.entry != who.entry) {
            waiter.entry = who.entry;
            waiter.times = 0;
            waiter.by.clear();
        }
        ++waiter.times;
        const auto known =
            std::find_if(waiter.by.begin(), waiter.by.end(), [&](const Overtaker &one) { return one.pid == by.pid; });
        constexpr std::size_t kMostKnown = 16;
        if (known != waiter.by.end())
            ++known->times;
        else if (waiter.by.size() < kMostKnown)
            waiter.by.push_back({by.image, by.pid, 1});
    }
    void end_wait(Index index, const Request &request, std::int64_t t_ns) {
        Waiter &waiter = waiters_[index];
        waiter.entry = 0;
        if (waiter.times < kOvertaken || t_ns - request.since_ns < kLeastWaitNs) return;
        Starved starved{request.lock, request.image, request.pid, request.tid, request.since_ns,
                        t_ns,         waiter.times,  0,           waiter.by};
        std::sort(starved.by.begin(), starved.by.end(), [](const Overtaker &a, const Overtaker &b) {
            return a.times != b.times ? a.times > b.times : a.pid < b.pid;
        });
        const auto known =
            std::find_if(worst_.begin(), worst_.end(), [&](const Starved &one) { return one.lock == request.lock; });
        if (known == worst_.end()) {
            if (worst_.size() < kMostFindings) worst_.push_back(std::move(starved));
            return;
        }
        starved.others = ++known->others;
        if (starved.times > known->times) *known = std::move(starved);
    }
    Finding describe(const Starved &starved, std::int64_t from_utc_ns) const {
        std::vector<std::string> names;
        for (const Overtaker &one : starved.by)
            names.push_back(fmt::format("{} ({} times)", process_words(model(), one.image, one.pid), one.times));
        Finding finding;
        finding.kind = "starvation";
        finding.severity = Severity::warning;
        finding.from_ns = starved.from_ns - from_utc_ns;
        finding.to_ns = starved.to_ns - from_utc_ns;
        finding.locks = {model().locks[starved.lock].id};
        Participant who = participant_of(model(), starved.image, starved.pid, starved.tid);
        who.waits_for = finding.locks.front();
        finding.participants.push_back(std::move(who));
        finding.summary = fmt::format(
            "{} waited {} for {}, and {} calls that came later got it first, by {}{}. The kernel keeps no order among "
            "those that wait: let go for longer before asking again, or queue in an order of your own.",
            thread_words(model(), starved.image, starved.pid, starved.tid),
            duration_words(starved.to_ns - starved.from_ns), lock_words(model(), starved.lock), starved.times,
            list_words(names, kMostNames),
            starved.others > 0 ? fmt::format("; {} more waits for it fared likewise", starved.others) : "");
        return finding;
    }

    std::vector<Waiter> waiters_;
    std::vector<Starved> worst_;
};

}  // namespace

std::unique_ptr<Detector> make_starvation(const Model &model) {
    return std::make_unique<StarvationDetector>(model);
}

}  // namespace planloop::analysis
