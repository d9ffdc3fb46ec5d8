// Locks that were taken in orders which could have met in a deadlock, although in this run they did not.
//
// Of each pair of locks a few requests are remembered, the first ones and the latest; a thread that does the same again
// between two forks or waits is only counted. So memory goes with the pairs of locks that are nested.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <utility>

#include "analysis/detector.h"
#include "analysis/lock_order.h"
#include "analysis/words.h"
#include "lockcore/clock.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostHeld = 64;         // by one thread, as far as they are looked at
constexpr std::size_t kMostPairs = 20'000;    // of locks that are nested
constexpr std::size_t kFirst = 4, kLast = 4;  // requests remembered for each pair
constexpr std::size_t kTold = 8;

std::uint64_t mixed(std::uint64_t seed, std::uint64_t value) noexcept {
    seed = (seed ^ value) * 0x9e3779b97f4a7c15u;
    return seed ^ seed >> 29;
}

ByteRange range_of(const LockPart &part) noexcept {
    return {part.first, part.last == kEndOfFile ? 0 : part.last - part.first + 1};
}

bool overlap(const ByteRange &one, const ByteRange &other) noexcept {
    return one.start <= last_byte(other.start, other.len) && other.start <= last_byte(one.start, one.len);
}

// What did happen has been told: a deadlock over the same locks, in which somebody asked for what each asks for here.
bool happened(const Finding &inversion, const Report &report) {
    const std::set<std::string> locks(inversion.locks.begin(), inversion.locks.end());
    return std::any_of(report.findings.begin(), report.findings.end(), [&](const Finding &told) {
        if (told.kind != "deadlock" && told.kind != "kernel_refused") return false;
        if (std::set<std::string>(told.locks.begin(), told.locks.end()) != locks) return false;
        return std::all_of(inversion.participants.begin(), inversion.participants.end(), [&](const Participant &one) {
            return std::any_of(told.participants.begin(), told.participants.end(), [&](const Participant &other) {
                return other.waits_for == one.waits_for && overlap(other.wanted, one.wanted);
            });
        });
    });
}

std::uint64_t hash_of(std::uint64_t seed, const LockPart &part) noexcept {
    seed = mixed(seed, std::uint64_t{part.lock} << 8 | static_cast<std::uint64_t>(part.mode));
    return mixed(mixed(seed, part.first), part.last);
}

class LockOrderInversion : public Detector {
  public:
    explicit LockOrderInversion(const Model &model) : Detector(model), order_(model.source) {}

    void event(const Event &event) override { order_.event(event); }

    void requested(const Request &request) override {
        if (!request.blocking || request.owner == kNone || (request.flags & wire::kBadArguments) != 0) return;
        held_.clear();
        held_parts(model(), request, kMostHeld, held_);
        if (held_.empty()) return;
        const LockPart wanted = wanted_part(model(), request);
        if (covered(wanted)) return;
        if (request.family == wire::Family::flock) {  // a conversion gives the old lock up first
            held_.erase(
                std::remove_if(held_.begin(), held_.end(), [&](const LockPart &part) { return same(part, wanted); }),
                held_.end());
        }
        std::uint64_t holding = mixed(request.stream, static_cast<std::uint64_t>(order_.last_change_ns(request.pid)));
        for (const LockPart &part : held_) holding = mixed(hash_of(holding, part), part.owner);
        for (const LockPart &part : held_) {
            if (!same(part, wanted))
                note(request, part, wanted, mixed(hash_of(hash_of(holding, part), wanted), wanted.owner));
        }
    }

    void finish(Report &report, const SourceNotes &notes) override;

  private:
    struct Pair {
        std::vector<Index> dependencies;
        std::size_t next = kFirst;    // to be replaced
        std::uint64_t forgotten = 0;  // times of those that were replaced
    };

    static bool same(const LockPart &part, const LockPart &wanted) {
        return part.owner == wanted.owner && part.family == wanted.family && part.overlaps(wanted);
    }
    // What the thread has already it gets without a wait.
    bool covered(const LockPart &wanted) const {
        return std::any_of(held_.begin(), held_.end(), [&](const LockPart &part) {
            return same(part, wanted) && part.first <= wanted.first && part.last >= wanted.last &&
                   part.mode >= wanted.mode;
        });
    }

    void note(const Request &request, const LockPart &held, const LockPart &wanted, std::uint64_t key) {
        key &= ~std::uint64_t{0} >> 1;  // the map reserves one value
        const Index known = by_key_.find(key);
        if (known != kNone) {
            ++dependencies_[known].times;
            return;
        }
        const std::uint64_t pair_key = hash_of(hash_of(0, held), wanted) >> 1;
        Index at = pairs_by_key_.find(pair_key);
        if (at == kNone) {
            if (pairs_.size() == kMostPairs) {
                ++not_looked_at_;
                return;
            }
            at = static_cast<Index>(pairs_.size());
            pairs_.emplace_back();
            pairs_by_key_.put(pair_key, at);
        }
        Pair &pair = pairs_[at];
        Index place = kNone;
        if (pair.dependencies.size() < kFirst + kLast) {
            place = static_cast<Index>(dependencies_.size());
            pair.dependencies.push_back(place);
            dependencies_.emplace_back();
            keys_.push_back(key);
        } else {
            place = pair.dependencies[pair.next];
            pair.next = pair.next + 1 == kFirst + kLast ? kFirst : pair.next + 1;
            by_key_.erase(keys_[place]);
            keys_[place] = key;
            pair.forgotten += dependencies_[place].times;
        }
        by_key_.put(key, place);
        dependencies_[place] = {held,           wanted,     held_,         order_.place(request.pid, model().now_ns),
                                model().now_ns, 1,          request.image, request.stream,
                                request.pid,    request.tid};
    }

    void tell_order(Report &report) const;
    Finding describe(const std::vector<const Dependency *> &circle, std::int64_t from_utc_ns) const;

    ProcessOrder order_;
    std::vector<Dependency> dependencies_;
    std::vector<std::uint64_t> keys_;  // of the dependencies
    std::vector<Pair> pairs_;
    FlatMap by_key_, pairs_by_key_;
    std::vector<LockPart> held_;
    std::uint64_t not_looked_at_ = 0;
};

Finding LockOrderInversion::describe(const std::vector<const Dependency *> &circle, std::int64_t from_utc_ns) const {
    Finding finding;
    finding.kind = "lock_order_inversion";
    finding.certainty = Certainty::likely;
    std::vector<std::string> order, told;
    std::int64_t last_ns = 0;
    for (std::size_t i = 0; i < circle.size(); ++i) {
        const Dependency &one = *circle[i];
        const Dependency &next = *circle[(i + 1) % circle.size()];
        if (one.held.borrowed) finding.certainty = Certainty::possible;
        Participant participant = participant_of(model(), one.image, one.pid, one.tid);
        participant.holds.push_back(model().locks[one.held.lock].id);
        participant.waits_for = model().locks[one.wanted.lock].id;
        participant.held.push_back(range_of(one.held));
        participant.wanted = range_of(one.wanted);
        participant.waits_on.push_back(next.pid);
        add_witness(participant, model(), one, from_utc_ns);
        if (std::find(finding.locks.begin(), finding.locks.end(), participant.holds[0]) == finding.locks.end())
            finding.locks.push_back(participant.holds[0]);
        told.push_back(fmt::format(
            "{} held {}{} when it asked for {}{} at {} ({}{})", thread_words(model(), one.image, one.pid, one.tid),
            lock_words(model(), one.held.lock), in_brackets(participant.held.front()),
            lock_words(model(), one.wanted.lock), in_brackets(participant.wanted), format_utc(one.t_ns).substr(11, 12),
            participant.trace_id, one.times > 1 ? fmt::format(", {} times", one.times) : ""));
        order.push_back(lock_words(model(), one.held.lock));
        last_ns = std::max(last_ns, one.t_ns);
        finding.participants.push_back(std::move(participant));
    }
    finding.from_ns = finding.to_ns = last_ns - from_utc_ns;
    std::sort(order.begin(), order.end());
    order.erase(std::unique(order.begin(), order.end()), order.end());
    std::string &text = finding.summary;
    text = "Locks were taken in orders that can meet in a deadlock, although this run was lucky: ";
    for (std::size_t i = 0; i < std::min(told.size(), kTold); ++i) text += (i == 0 ? "" : "; ") + told[i];
    if (told.size() > kTold) text += fmt::format("; and so on through {} more", told.size() - kTold);
    text += ". Nothing that is recorded keeps these from happening at once, and then each waits for the next for ever.";
    std::set<std::int32_t> pids;
    for (const Dependency *one : circle) pids.insert(one->pid);
    if (pids.size() < circle.size())
        text +=
            " What keeps threads of one process apart (that one is started after the other was joined, a mutex) is not "
            "recorded: look whether something does.";
    if (order.size() > 1)
        text += fmt::format(" Take these locks in one order everywhere: {}.", list_words(order, kTold));
    else
        text += " Take the ranges of a file in ascending order everywhere, or all that is needed in one call.";
    return finding;
}

void LockOrderInversion::tell_order(Report &report) const {
    std::map<std::pair<Index, Index>, std::uint64_t> times;
    for (const Pair &pair : pairs_) {
        const Dependency &first = dependencies_[pair.dependencies.front()];
        std::uint64_t &sum = times[{first.held.lock, first.wanted.lock}];
        sum += pair.forgotten;
        for (const Index at : pair.dependencies) sum += dependencies_[at].times;
    }
    for (const auto &[locks, sum] : times)
        report.order.push_back({model().locks[locks.first].id, model().locks[locks.second].id, sum});
    std::sort(report.order.begin(), report.order.end(), [](const LockOrder &a, const LockOrder &b) {
        return std::tie(a.held, a.wanted) < std::tie(b.held, b.wanted);
    });
}

void LockOrderInversion::finish(Report &report, const SourceNotes & /*notes*/) {
    tell_order(report);
    std::vector<const Dependency *> all;
    all.reserve(dependencies_.size());
    for (const Dependency &one : dependencies_) all.push_back(&one);
    const Circles circles = find_circles(all, order_);
    for (const std::vector<std::size_t> &places : circles.found) {
        std::vector<const Dependency *> circle;
        circle.reserve(places.size());
        for (const std::size_t place : places) circle.push_back(all[place]);
        Finding finding = describe(circle, report.from_utc_ns);
        if (!happened(finding, report)) report.findings.push_back(std::move(finding));
    }
    if (!circles.complete || not_looked_at_ > 0)
        report.notes.emplace_back("so many locks are nested that not every order of theirs could be looked at");
}

}  // namespace

std::unique_ptr<Detector> make_lock_order_inversion(const Model &model) {
    return std::make_unique<LockOrderInversion>(model);
}

}  // namespace planloop::analysis
