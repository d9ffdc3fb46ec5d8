// flock upgrades: the kernel drops the shared lock before it tries for the exclusive one (flock(2)). Somebody else can
// get in between, and who is refused or interrupted has nothing any more.
//
// Silent while nobody else ever took the lock exclusively and no upgrade failed: then nothing could have happened.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

class NonAtomicUpgrade : public Detector {
  public:
    using Detector::Detector;

    void requested(const Request &request) override {
        if (request.family != wire::Family::flock || request.mode != wire::Mode::exclusive) return;
        if (request.owner == kNone || (request.flags & wire::kBadArguments) != 0) return;
        bool shared = false;
        model().for_own(request, [&](const RangeMap::Segment &segment) {
            shared = shared || model().holds[segment.hold].mode == wire::Mode::shared;
        });
        if (shared) open_.push_back({request.entry, request.lock, {}});
    }

    void acquired(Index index) override {
        const Hold &hold = model().holds[index];
        if (hold.mode != wire::Mode::exclusive || model().locks[hold.lock].family != wire::Family::flock) return;
        if (takers_.size() <= hold.lock) takers_.resize(model().locks.size());
        Takers &takers = takers_[hold.lock];
        if (takers.pid == 0) takers = {hold.pid, hold.tid, false};
        takers.several = takers.several || takers.pid != hold.pid || takers.tid != hold.tid;
        for (Upgrade &upgrade : open_)
            if (upgrade.lock == hold.lock && upgrade.entry != hold.entry && upgrade.between.pid == 0)
                upgrade.between = {hold.image, hold.pid, hold.tid};
    }

    void request_done(Index index, const RequestEnd &end) override {
        const Request &request = model().requests[index];
        const auto at = std::find_if(open_.begin(), open_.end(),
                                     [&](const Upgrade &upgrade) { return upgrade.entry == request.entry; });
        if (at == open_.end()) return;
        const Upgrade upgrade = *at;
        open_.erase(at);
        if (end.outcome == Outcome::abandoned) return;
        const bool lost = end.outcome == Outcome::failed;
        Found &found = by_lock_[request.lock];
        found.lost += lost ? 1 : 0;
        found.overtaken += upgrade.between.pid != 0 ? 1 : 0;
        const int weight = upgrade.between.pid != 0 ? 3 : lost ? 2 : 1;
        if (found.times++ > 0 && weight <= found.weight) return;
        found.weight = weight;
        found.t_ns = end.t_ns;
        found.who = {request.image, request.pid, request.tid};
        found.between = upgrade.between;
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const auto &[lock, found] : by_lock_) {
            const bool happened = found.lost > 0 || found.overtaken > 0;
            const bool others = lock < takers_.size() && takers_[lock].several;
            if (happened || others) report.findings.push_back(describe(lock, found, report.from_utc_ns));
        }
    }

  private:
    struct Who {
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
    };
    struct Upgrade {
        std::uint64_t entry;
        Index lock;
        Who between;
    };
    struct Takers {  // of an exclusive lock
        std::int32_t pid = 0, tid = 0;
        bool several = false;
    };
    struct Found {
        std::uint64_t times = 0, lost = 0, overtaken = 0;
        int weight = 0;  // of the example that is told
        std::int64_t t_ns = 0;
        Who who, between;
    };

    Finding describe(Index lock, const Found &found, std::int64_t from_utc_ns) const {
        const bool happened = found.lost > 0 || found.overtaken > 0;
        Finding finding;
        finding.kind = "non_atomic_upgrade";
        finding.severity = happened ? Severity::warning : Severity::info;
        finding.certainty = happened ? Certainty::confirmed : Certainty::possible;
        finding.from_ns = finding.to_ns = found.t_ns - from_utc_ns;
        finding.locks.push_back(model().locks[lock].id);
        finding.participants.push_back(participant_of(model(), found.who.image, found.who.pid, found.who.tid));
        if (found.between.pid != 0)
            finding.participants.push_back(
                participant_of(model(), found.between.image, found.between.pid, found.between.tid));
        const std::string who = thread_words(model(), found.who.image, found.who.pid, found.who.tid);
        const std::string name = lock_words(model(), lock);
        std::string &text = finding.summary;
        if (found.between.pid != 0)
            text =
                fmt::format("While {} turned its shared lock on {} into an exclusive one, {} had it exclusively", who,
                            name, thread_words(model(), found.between.image, found.between.pid, found.between.tid));
        else if (found.lost > 0)
            text = fmt::format(
                "{} tried to turn its shared lock on {} into an exclusive one, did not get it, and lost "
                "the shared lock too",
                who, name);
        else
            text = fmt::format(
                "{} turned its shared lock on {} into an exclusive one, and others take that lock "
                "exclusively as well, so one of them could have had it in between",
                who, name);
        text += fmt::format(". {} of {} such upgrades failed and in {} somebody got in between.", found.lost,
                            found.times, found.overtaken);
        text +=
            " flock drops the old lock before it asks for the new one: what was read under the shared lock may be old "
            "when the exclusive one comes. Take the lock exclusively from the start, or read again after the upgrade.";
        return finding;
    }

    std::vector<Upgrade> open_;
    std::vector<Takers> takers_;  // by lock
    std::map<Index, Found> by_lock_;
};

}  // namespace

std::unique_ptr<Detector> make_non_atomic_upgrade(const Model &model) {
    return std::make_unique<NonAtomicUpgrade>(model);
}

}  // namespace planloop::analysis
