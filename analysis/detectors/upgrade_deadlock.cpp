// Shared holders of one lock that both ask for it exclusively: each waits for the other to let go of its shared lock,
// which neither does, since OFD and POSIX upgrades keep it (fcntl(2)). flock upgrades give it up first and are another
// finding, non_atomic_upgrade.
//
// Found also when the upgrades did not meet in this run. Silent when nobody else could hold it shared meanwhile: a gate
// lock, one thread, one process after the other.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "analysis/detector.h"
#include "analysis/lock_order.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostHeld = 64;
constexpr std::size_t kMostUpgrades = 16;  // remembered for each lock: the first ones

class UpgradeDeadlock : public Detector {
  public:
    explicit UpgradeDeadlock(const Model &model) : Detector(model), order_(model.source) {}

    void event(const Event &event) override { order_.event(event); }

    void requested(const Request &request) override {
        if (request.mode != wire::Mode::exclusive || !request.blocking || request.owner == kNone) return;
        if (request.family == wire::Family::flock || (request.flags & wire::kBadArguments) != 0) return;
        Index shared = kNone;
        model().for_own(request, [&](const RangeMap::Segment &segment) {
            if (model().holds[segment.hold].mode == wire::Mode::shared) shared = segment.hold;
        });
        if (shared == kNone) return;
        Dependency upgrade;
        held_parts(model(), request, kMostHeld, upgrade.all);
        upgrade.wanted = wanted_part(model(), request);
        const auto held = std::find_if(upgrade.all.begin(), upgrade.all.end(), [&](const LockPart &part) {
            return part.owner == upgrade.wanted.owner && part.overlaps(upgrade.wanted);
        });
        if (held == upgrade.all.end()) return;  // another thread took it
        upgrade.held = *held;
        upgrade.place = order_.place(request.pid, model().now_ns);
        upgrade.t_ns = model().now_ns;
        upgrade.image = request.image;
        upgrade.stream = request.stream;
        upgrade.pid = request.pid;
        upgrade.tid = request.tid;
        std::vector<Dependency> &known = by_lock_[request.lock];
        for (Dependency &one : known) {
            if (one.stream != upgrade.stream || one.wanted.first != upgrade.wanted.first) continue;
            ++one.times;
            return;
        }
        if (known.size() < kMostUpgrades) known.push_back(std::move(upgrade));
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const auto &[lock, upgrades] : by_lock_) {
            const auto [one, other] = pair_of(upgrades);
            if (one == nullptr) continue;
            report.findings.push_back(describe(lock, *one, *other, report.from_utc_ns));
        }
    }

  private:
    using PairOfUpgrades = std::pair<const Dependency *, const Dependency *>;

    PairOfUpgrades pair_of(const std::vector<Dependency> &upgrades) const {
        for (const Dependency &one : upgrades) {
            for (const Dependency &other : upgrades) {
                if (&one == &other) break;
                if (one.wanted.excludes(other.held) && other.wanted.excludes(one.held) &&
                    can_coincide(other, one, order_))
                    return {&other, &one};
            }
        }
        return {nullptr, nullptr};
    }

    Finding describe(Index lock, const Dependency &one, const Dependency &other, std::int64_t from_utc_ns) const {
        Finding finding;
        finding.kind = "upgrade_deadlock";
        finding.certainty = Certainty::likely;
        finding.from_ns = finding.to_ns = std::max(one.t_ns, other.t_ns) - from_utc_ns;
        const std::string &id = model().locks[lock].id;
        finding.locks.push_back(id);
        for (const Dependency *upgrade : {&one, &other}) {
            Participant participant = participant_of(model(), upgrade->image, upgrade->pid, upgrade->tid);
            participant.holds.push_back(id);
            participant.waits_for = id;
            participant.waits_on.push_back(upgrade == &one ? other.pid : one.pid);
            add_witness(participant, model(), *upgrade, from_utc_ns);
            finding.participants.push_back(std::move(participant));
        }
        finding.summary = fmt::format(
            "{} and {} both held {} shared and asked for it exclusively. Each keeps its shared lock while it waits, so "
            "when they meet, each waits for the other for ever. Take the lock exclusively from the start when it may "
            "have to be written, or unlock before asking for more.",
            thread_words(model(), one.image, one.pid, one.tid),
            thread_words(model(), other.image, other.pid, other.tid), lock_words(model(), lock));
        return finding;
    }

    ProcessOrder order_;
    std::map<Index, std::vector<Dependency>> by_lock_;
};

}  // namespace

std::unique_ptr<Detector> make_upgrade_deadlock(const Model &model) {
    return std::make_unique<UpgradeDeadlock>(model);
}

}  // namespace planloop::analysis
