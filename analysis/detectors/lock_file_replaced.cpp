// Lock files that were made anew under the same path while somebody held the old one or waited for it: both sides think
// that they are alone, since a lock belongs to the inode and not to the name.
//
// Looked for only where a path has led to more than one file, so a lock call costs one look into a table.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

class LockFileReplaced : public Detector {
  public:
    using Detector::Detector;

    void acquired(Index index) override {
        const Hold &hold = model().holds[index];
        if (!see(hold.lock)) return;
        look(hold.lock, {hold.image, hold.pid, hold.tid}, true);
    }
    void blocked(Index index) override {
        const Request &request = model().requests[index];
        if (!see(request.lock)) return;
        look(request.lock, {request.image, request.pid, request.tid}, false);
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const auto &[name, found] : by_name_) {
            Finding finding;
            finding.kind = "lock_file_replaced";
            finding.certainty = found.both_hold ? Certainty::confirmed : Certainty::likely;
            finding.from_ns = finding.to_ns = found.t_ns - report.from_utc_ns;
            finding.locks = {model().locks[found.lock].id, model().locks[found.rival].id};
            const auto add = [&](const Who &who, Index lock, bool holds) {
                Participant one = participant_of(model(), who.image, who.pid, who.tid);
                const std::string &id = model().locks[lock].id;
                if (holds)
                    one.holds.push_back(id);
                else
                    one.waits_for = id;
                finding.participants.push_back(std::move(one));
            };
            add(found.one, found.lock, found.one_holds);
            add(found.other, found.rival, found.other_holds);
            finding.summary = fmt::format(
                "{} was replaced by another file of that name: {} {} the one, {} at the same time {} the other, and "
                "neither sees the other's lock. Do not remove or rename a lock file that may be in use; or, having got "
                "the lock, compare fstat with stat of the path and start again when they differ.",
                path_words(found.lock), process_words(model(), found.one.image, found.one.pid),
                found.one_holds ? "holds" : "waits for", process_words(model(), found.other.image, found.other.pid),
                found.other_holds ? "holds" : "waits for");
            report.findings.push_back(std::move(finding));
        }
    }

  private:
    struct Who {
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
    };
    struct Found {
        std::int64_t t_ns = 0;
        Index lock = kNone, rival = kNone;
        Who one, other;
        bool one_holds = false, other_holds = false, both_hold = false;
    };

    static std::string_view plain_path(std::string_view path) {
        constexpr std::string_view kDeleted = " (deleted)";  // as /proc shows the link to an unlinked file
        if (path.size() > kDeleted.size() && path.substr(path.size() - kDeleted.size()) == kDeleted)
            path.remove_suffix(kDeleted.size());
        return path;
    }
    std::string path_words(Index lock) const { return std::string(plain_path(model().locks.path(lock))); }

    // Enters a lock that is new; true when its path has led to other files too.
    bool see(Index lock) {
        if (same_path_.size() <= lock) same_path_.resize(model().locks.size());
        Seen &seen = same_path_[lock];
        if (!seen.known) {
            seen.known = true;
            const std::string_view path = plain_path(model().locks.path(lock));
            if (!path.empty()) {
                ByPath::value_type &entry = *by_path_.try_emplace(std::string(path)).first;
                seen.under_path = &entry;  // never moves
                std::vector<Index> &locks = entry.second;
                for (const Index other : locks) same_path_[other].rivals = true;
                seen.rivals = !locks.empty();
                if (locks.size() == kMostFiles) locks.erase(locks.begin());
                locks.push_back(lock);
            }
        }
        return seen.rivals;
    }

    void look(Index lock, const Who &who, bool holds) {
        const ByPath::value_type *at = same_path_[lock].under_path;
        for (const Index rival : at->second) {
            const Lock &one = model().locks[lock], &other = model().locks[rival];
            if (one.file == other.file || one.family != other.family) continue;
            Found found{model().now_ns, lock, rival, who, {}, holds, false, false};
            if (!user_of(rival, found)) continue;
            const Name name{at->first, one.family};
            const auto known = by_name_.find(name);
            if (known != by_name_.end() && (known->second.both_hold || !holds)) continue;
            found.both_hold = holds && found.other_holds;
            if (known == by_name_.end() || found.both_hold) by_name_[name] = found;
        }
    }

    bool user_of(Index lock, Found &found) const {
        const Domain &domain = model().locks.domain(model().locks[lock].domain);
        for (const Index at : domain.owners) {
            for (const RangeMap::Segment &segment : model().ranges[at].map.segments()) {
                const Hold &hold = model().holds[segment.hold];
                if (hold.lock != lock) continue;
                found.other = {hold.image, hold.pid, hold.tid};
                found.other_holds = true;
                return true;
            }
        }
        for (const Index at : domain.waiters) {
            const Request &waiter = model().requests[at];
            if (waiter.lock != lock || waiter.parked || !waiter.blocking || waiter.obstacles == 0) continue;
            const Request &request =
                waiter.leads == kNone ? waiter : model().requests[model().crowds[waiter.leads].members.front().request];
            found.other = {request.image, request.pid, request.tid};
            return true;
        }
        return false;
    }

    static constexpr std::size_t kMostFiles = 16;  // under one path: a file made anew for each use has no end of them
    using ByPath = std::unordered_map<std::string, std::vector<Index>>;
    struct Seen {
        bool known = false, rivals = false;
        const ByPath::value_type *under_path = nullptr;  // set when there are rivals
    };
    std::vector<Seen> same_path_;  // by lock
    ByPath by_path_;
    using Name = std::pair<std::string, wire::Family>;
    std::map<Name, Found> by_name_;
};

}  // namespace

std::unique_ptr<Detector> make_lock_file_replaced(const Model &model) {
    return std::make_unique<LockFileReplaced>(model);
}

}  // namespace planloop::analysis
