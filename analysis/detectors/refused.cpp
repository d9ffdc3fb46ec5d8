// EDEADLK: the kernel refused a POSIX lock because it saw a circle. Its guess can be wrong (a thread of the owner may
// still run), so this is told as a refusal and not as a deadlock.
#include <fmt/format.h>

#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "analysis/deadlock.h"
#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostFindings = 1'000;

class KernelRefused : public Detector {
  public:
    explicit KernelRefused(const Model &model) : Detector(model), graph_(model) {}

    void request_done(Index index, const RequestEnd &end) override {
        if (end.outcome != Outcome::failed || end.error != EDEADLK) return;
        const Request &request = model().requests[index];
        const auto [at, fresh] = found_.try_emplace({request.pid, request.lock});
        Found &found = at->second;
        ++found.times;
        if (!fresh || found_.size() > kMostFindings) return;
        found.t_ns = end.t_ns;
        found.image = request.image;
        found.tid = request.tid;
        const std::vector<Index> threads = graph_.cycle_through(request.thread);
        if (!threads.empty()) found.members = describe_members(model(), graph_, threads);
        for (const Blame &blame : request.blame)
            if (blame.active > 0 && blame.pid != 0)
                found.blockers.push_back(process_words(model(), blame.image, blame.pid));
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        std::size_t told = 0;
        for (const auto &[key, found] : found_) {
            if (++told > kMostFindings) break;
            report.findings.push_back(describe(key.first, key.second, found, report));
        }
    }

  private:
    struct Found {
        std::int64_t t_ns = 0;
        std::uint32_t image = 0;
        std::int32_t tid = 0;
        std::uint64_t times = 0;
        std::vector<DeadlockMember> members;
        std::vector<std::string> blockers;
    };

    Finding describe(std::int32_t pid, Index lock, const Found &found, const Report &report) const {
        Finding finding;
        if (!found.members.empty()) {
            Deadlock circle;
            circle.members = found.members;
            circle.from_ns = circle.to_ns = found.t_ns;
            finding = deadlock_finding(model(), circle, report.from_utc_ns);
        } else {
            finding.participants.push_back(participant_of(model(), found.image, pid, found.tid));
            finding.participants.back().waits_for = model().locks[lock].id;
            finding.locks.push_back(model().locks[lock].id);
        }
        finding.kind = "kernel_refused";
        finding.severity = Severity::warning;
        finding.certainty = Certainty::confirmed;
        finding.also_held_by.clear();
        finding.from_ns = finding.to_ns = found.t_ns - report.from_utc_ns;
        finding.resolved_by.clear();
        finding.summary =
            fmt::format("The kernel refused {} the lock {} because it took the wait for a deadlock (EDEADLK)",
                        thread_words(model(), found.image, pid, found.tid), lock_words(model(), lock));
        if (found.times > 1) finding.summary += fmt::format(", {} times", found.times);
        if (!found.blockers.empty())
            finding.summary += fmt::format("; in its way stood {}", list_words(found.blockers));
        if (found.members.size() > 1)
            finding.summary +=
                fmt::format(". {} threads would have waited for each other in a circle", found.members.size());
        finding.summary +=
            ". The kernel can be wrong about processes with several threads. Take the locks in one order everywhere, "
            "or give up what is held and try again.";
        return finding;
    }

    WaitGraph graph_;
    std::map<std::pair<std::int32_t, Index>, Found> found_;
};

}  // namespace

std::unique_ptr<Detector> make_kernel_refused(const Model &model) {
    return std::make_unique<KernelRefused>(model);
}

}  // namespace planloop::analysis
