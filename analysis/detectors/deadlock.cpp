// Circular waits: found when the call that closes one begins, followed until something ends them. Others that close
// one: a parent that begins to wait for its child, somebody who is found to share a lock, a signal handler that gets a
// lock while the call that it interrupted waits, somebody who took one and lets go of the open file, or ends, and
// leaves it to others who wait. A circle that somebody could still open is looked at again at such a moment.
//
// What looks like a deadlock and dissolves because one of its members simply gets its lock, while nobody in it
// failed or died, was none: it is dropped without a word. So is one that a parent closes by waiting for a child that it
// has just killed. Whatever a running thread or sharer released was at most possible.
#include "analysis/deadlock.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <memory>

#include "analysis/detector.h"
#include "analysis/holds.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostFindings = 1'000;
// A deadlock of the same threads over the same locks that closes again this soon goes on: an interrupted call that
// was simply repeated.
constexpr std::int64_t kReopenNs = 1'000'000'000;
// A child that is dead so soon after its parent began to wait for it, which is told of it, had been killed before.
constexpr std::int64_t kAtOnceNs = 20'000'000;
constexpr std::size_t kRecent = 8;  // that are over, and may go on

bool rests_on_unrecorded(const Verdict &verdict) {
    return std::any_of(verdict.weaknesses.begin(), verdict.weaknesses.end(),
                       [](const Weakness &one) { return one.kind == Weakness::between; });
}

class DeadlockDetector : public Detector {
  public:
    explicit DeadlockDetector(const Model &model) : Detector(model), graph_(model) {}

    void blocked(Index request) override {
        before_change();
        look_from(model().requests[request].thread);
    }
    void request_done(Index request, const RequestEnd &end) override;
    void hold_ended(Index hold, const HoldEnd &end) override;
    void process_ended(Index process, const ProcessEnd &end) override;
    void child_wait_begun(Index process) override;
    void acquired(Index hold) override;
    void event(const Event &event) override;
    void applied(const Event &event) override;
    void finish(Report &report, const SourceNotes &notes) override;

  private:
    Deadlock *find(std::uint32_t stream) {
        const Index at = by_stream_.find(stream);
        return at == kNone ? nullptr : &deadlocks_[at];
    }
    const DeadlockMember *member(const Deadlock &deadlock, std::uint32_t stream) const {
        for (const DeadlockMember &one : deadlock.members)
            if (one.stream == stream) return &one;
        return nullptr;
    }
    void look_from(Index thread);
    void look_at_process(Index process);
    void note_left_behind(Index description);
    void note_killed_at_once(Deadlock &deadlock, const Process &process, const ProcessEnd &end) const;
    void reaped(std::int32_t parent, std::int64_t child);
    void take_over(Deadlock &fresh);
    void reopen(Deadlock &fresh);
    void track(Index deadlock);
    void untrack(Index deadlock);
    void judge(Deadlock &deadlock);
    void blame(Deadlock &deadlock, Deadlock::Cause cause, std::int64_t t_ns, std::string words);
    void close(Index deadlock, std::int64_t t_ns);
    void settle(Index deadlock);
    void before_change();
    bool came_later(const Deadlock &deadlock, const DeadlockMember &waiter, const Hold &hold) const;
    bool only_way_back(const Deadlock &deadlock, Index thread, Index hold) const;
    void tell(const Deadlock &deadlock) const;
    void tell_over(const Deadlock &deadlock) const {
        if (model().listener != nullptr) model().listener->deadlock_over(deadlock.id);
    }

    WaitGraph graph_;
    Pool<Deadlock> deadlocks_;
    std::vector<Index> tracked_;  // open or settling
    std::vector<Deadlock> over_;
    std::uint64_t not_listed_ = 0;
    std::uint64_t ids_ = 0;
    std::int32_t waiting_parent_ = 0;  // pid of who begins to wait for a child in the present event
    FlatMap by_stream_;
    std::vector<Index> left_behind_;         // locked descriptions that somebody lets go of in the present event
    std::vector<std::uint32_t> look_again_;  // streams left over from a deadlock that was more than one ring
};

void DeadlockDetector::tell(const Deadlock &deadlock) const {
    if (model().listener == nullptr) return;
    StandingDeadlock standing{deadlock.id, deadlock_finding(model(), deadlock, 0), {}};
    for (const DeadlockMember &one : deadlock.members) standing.entries.push_back(one.entry);
    model().listener->deadlock_stands(standing);
}

void DeadlockDetector::track(Index at) {
    deadlocks_[at].id = ++ids_;
    tell(deadlocks_[at]);
    tracked_.push_back(at);
    for (const DeadlockMember &one : deadlocks_[at].members) by_stream_.put(one.stream, at);
}

void DeadlockDetector::untrack(Index at) {
    if (deadlocks_[at].state == Deadlock::State::open) tell_over(deadlocks_[at]);
    for (const DeadlockMember &one : deadlocks_[at].members)
        if (by_stream_.find(one.stream) == at) by_stream_.erase(one.stream);
    tracked_.erase(std::remove(tracked_.begin(), tracked_.end(), at), tracked_.end());
    deadlocks_.release(at);
}

void DeadlockDetector::look_from(Index thread) {
    const std::vector<Index> threads = graph_.cycle_through(thread);
    if (threads.empty()) return;
    Deadlock fresh;
    fresh.from_ns = fresh.closed_ns = model().now_ns;
    fresh.members = describe_members(model(), graph_, threads);
    if (waiting_parent_ != 0) fresh.wait = {waiting_parent_, 0, model().now_ns, true, {}, {}};
    // A deadlock that grows stays one.
    for (const DeadlockMember &one : fresh.members) {
        const Index known = by_stream_.find(one.stream);
        if (known == kNone) continue;
        if (deadlocks_[known].state == Deadlock::State::open) {
            fresh.from_ns = std::min(fresh.from_ns, deadlocks_[known].from_ns);
            fresh.wait = {};
            if (deadlocks_[known].whole != nullptr) over_.push_back(*deadlocks_[known].whole);
            untrack(known);
        } else {
            settle(known);
        }
    }
    const Verdict verdict = graph_.judge(threads);
    fresh.certainty = verdict.certainty;
    fresh.weaknesses = verdict.weaknesses;
    fresh.supposed = rests_on_unrecorded(verdict);
    reopen(fresh);
    take_over(fresh);
    const Index at = deadlocks_.make();
    deadlocks_[at] = std::move(fresh);
    track(at);
}

void DeadlockDetector::reopen(Deadlock &fresh) {
    const std::size_t oldest = over_.size() > kRecent ? over_.size() - kRecent : 0;
    for (std::size_t i = over_.size(); i-- > oldest;) {
        const Deadlock &before = over_[i];
        if (fresh.from_ns - before.to_ns > kReopenNs || before.cause == Deadlock::Cause::refused) continue;
        const bool same =
            std::equal(before.members.begin(), before.members.end(), fresh.members.begin(), fresh.members.end(),
                       [](const DeadlockMember &a, const DeadlockMember &b) {
                           return a.stream == b.stream && a.waits_for == b.waits_for && a.holds == b.holds;
                       });
        if (!same) continue;
        fresh.from_ns = before.from_ns;
        fresh.times = before.times + 1;
        fresh.wait = {};
        over_.erase(over_.begin() + static_cast<std::ptrdiff_t>(i));
        return;
    }
}

// Those that are left of a deadlock when one of them goes on are no deadlock of their own.
void DeadlockDetector::take_over(Deadlock &fresh) {
    const auto last = over_.rbegin() + static_cast<std::ptrdiff_t>(std::min(over_.size(), kRecent));
    const auto before = std::find_if(over_.rbegin(), last, [&](const Deadlock &known) {
        return std::all_of(fresh.members.begin(), fresh.members.end(), [&](const DeadlockMember &one) {
            const DeadlockMember *same = member(known, one.stream);
            return same != nullptr && same->entry == one.entry;
        });
    });
    if (before == last) return;
    fresh.from_ns = before->from_ns;
    fresh.times = before->times;
    fresh.whole = std::make_shared<Deadlock>(std::move(*before));
    over_.erase(std::next(before).base());
}

// The members are still blocked; whoever could have freed one of them when the circle closed may be stuck by now.
void DeadlockDetector::judge(Deadlock &deadlock) {
    if (deadlock.state != Deadlock::State::open || deadlock.certainty == Certainty::confirmed) return;
    std::vector<Index> threads;
    for (const DeadlockMember &one : deadlock.members) {
        const Index thread = model().table.find_stream(one.stream);
        if (thread == kNone || model().blocked_request(thread) == kNone) return;
        threads.push_back(thread);
    }
    Verdict verdict = graph_.judge(threads);
    if (verdict.certainty < deadlock.certainty) return;
    const bool surer = verdict.certainty > deadlock.certainty;
    deadlock.certainty = verdict.certainty;
    deadlock.supposed = deadlock.supposed || rests_on_unrecorded(verdict);
    deadlock.weaknesses = std::move(verdict.weaknesses);
    if (surer) tell(deadlock);
}

void DeadlockDetector::blame(Deadlock &deadlock, Deadlock::Cause cause, std::int64_t t_ns, std::string words) {
    if (cause < deadlock.cause) return;
    judge(deadlock);
    deadlock.cause = cause;
    deadlock.cause_ns = t_ns;
    deadlock.resolved_by = std::move(words);
}

void DeadlockDetector::close(Index at, std::int64_t t_ns) {
    Deadlock &deadlock = deadlocks_[at];
    if (deadlock.state != Deadlock::State::open) return;
    judge(deadlock);
    tell_over(deadlock);
    deadlock.state = Deadlock::State::settling;
    deadlock.to_ns = t_ns;
    if (deadlock.members.size() > 1 && !deadlock.simple())
        for (const DeadlockMember &one : deadlock.members) look_again_.push_back(one.stream);
    if (deadlock.cause != Deadlock::Cause::unknown) settle(at);
}

// Decides what becomes of a deadlock that is not in force any more.
void DeadlockDetector::settle(Index at) {
    Deadlock &deadlock = deadlocks_[at];
    bool drop = deadlock.cause == Deadlock::Cause::unknown || deadlock.cause == Deadlock::Cause::refused;
    if (deadlock.cause == Deadlock::Cause::released) {
        // Who was not known to wait did not.
        drop = drop || deadlock.supposed || deadlock.certainty != Certainty::likely;
        deadlock.certainty = Certainty::possible;
    }
    if (!drop || deadlock.whole != nullptr) {
        deadlock.state = Deadlock::State::over;
        deadlock.to_ns = std::max(deadlock.from_ns, std::min(deadlock.to_ns, deadlock.cause_ns));
        if (deadlock.whole != nullptr) {
            const std::shared_ptr<Deadlock> whole = std::move(deadlock.whole);
            if (!drop) {
                whole->to_ns = std::max(whole->to_ns, deadlock.to_ns);
                whole->resolved_by = deadlock.resolved_by;
            }
            deadlock = *whole;
        }
        if (over_.size() < kMostFindings)
            over_.push_back(deadlock);
        else
            ++not_listed_;
    }
    untrack(at);
}

void DeadlockDetector::before_change() {
    if (!look_again_.empty()) {
        std::vector<std::uint32_t> streams;
        streams.swap(look_again_);
        for (const std::uint32_t stream : streams) {
            const Index thread = model().table.find_stream(stream);
            if (thread != kNone && by_stream_.find(stream) == kNone && model().blocked_request(thread) != kNone)
                look_from(thread);
        }
    }
    if (tracked_.empty()) return;
    std::vector<Index> late;
    for (const Index at : tracked_)
        if (deadlocks_[at].state == Deadlock::State::settling && model().now_ns - deadlocks_[at].to_ns > kLateDeathNs)
            late.push_back(at);
    for (const Index at : late) settle(at);
}

void DeadlockDetector::request_done(Index index, const RequestEnd &end) {
    if (tracked_.empty()) return;
    before_change();
    const Request &request = model().requests[index];
    const Index at = by_stream_.find(request.stream);
    if (at == kNone) return;
    Deadlock &deadlock = deadlocks_[at];
    const DeadlockMember *who = member(deadlock, request.stream);
    if (who == nullptr || who->entry != request.entry) return;
    if (end.outcome == Outcome::failed) {
        const std::string name = thread_words(model(), who->image, who->pid, who->tid);
        const std::string lock = lock_words(model(), who->waits_for);
        std::string words = fmt::format("{}'s wait for {} failed with error {}", name, lock, end.error);
        if (end.error == EINTR) words = fmt::format("{}'s wait for {} was interrupted by a signal", name, lock);
        if (end.error == ETIMEDOUT) words = fmt::format("{}'s wait for {} timed out", name, lock);
        if (end.error == ECANCELED) words = fmt::format("{}'s wait for {} was cancelled", name, lock);
        if (end.error == EDEADLK) words = fmt::format("the kernel refused {} the lock {}", name, lock);
        // A call that the kernel could make nothing of has not waited.
        const bool senseless = end.error == EBADF || end.error == EINVAL || end.error == EFAULT;
        const bool refused = end.error == EDEADLK || senseless;
        const auto cause = refused ? Deadlock::Cause::refused : Deadlock::Cause::interrupted;
        blame(deadlock, cause, end.t_ns, std::move(words));
    } else if (deadlock.state == Deadlock::State::open) {
        for (const std::size_t place : who->waits_on) deadlock.suspects.push_back(deadlock.members[place].pid);
    }
    close(at, end.t_ns);
}

void DeadlockDetector::hold_ended(Index index, const HoldEnd &end) {
    if (tracked_.empty()) return;
    before_change();
    if (end.reason == Reason::undecided) return;  // its owner's end, if that is why, will be told
    const Hold &hold = model().holds[index];
    model().for_waiters(model().locks[hold.lock].domain, [&](Index waiter) {
        const Request &request = model().requests[waiter];
        Deadlock *deadlock = find(request.stream);
        if (deadlock == nullptr || deadlock->state != Deadlock::State::open) return;
        const DeadlockMember *who = member(*deadlock, request.stream);
        if (who == nullptr || who->entry != request.entry || who->waits_for != request.lock) return;
        const bool own = request.owner == hold.owner && request.family == model().locks[hold.lock].family;
        if (own || !exclude(request.mode, hold.mode) || came_later(*deadlock, *who, hold)) return;
        const std::string words =
            fmt::format("{} released {}", process_words(model(), end.image, end.pid), lock_words(model(), hold.lock));
        const bool died = end.reason == Reason::killed || end.reason == Reason::exit;
        blame(*deadlock, died ? Deadlock::Cause::died : Deadlock::Cause::released, end.t_ns,
              died && !deadlock->resolved_by.empty() ? deadlock->resolved_by : words);
        if (!died && deadlock->certainty != Certainty::confirmed && only_way_back(*deadlock, request.thread, index))
            close(by_stream_.find(request.stream), end.t_ns);
    });
}

// Whether the hold is of somebody who got the lock when the circle stood, or was broken already: a member then queues
// behind it, but it is no part of the circle.
bool DeadlockDetector::came_later(const Deadlock &deadlock, const DeadlockMember &waiter, const Hold &hold) const {
    if (hold.since_ns <= deadlock.closed_ns) return false;
    return std::none_of(waiter.waits_on.begin(), waiter.waits_on.end(), [&](std::size_t place) {
        const std::vector<std::int32_t> &holders = deadlock.members[place].holders;
        return std::find(holders.begin(), holders.end(), hold.pid) != holders.end();
    });
}

// Whether a member, which is blocked, waits for other members through this hold alone.
bool DeadlockDetector::only_way_back(const Deadlock &deadlock, Index thread, Index hold) const {
    std::vector<WaitGraph::Edge> edges;
    graph_.edges(thread, edges);
    return std::none_of(edges.begin(), edges.end(), [&](const WaitGraph::Edge &edge) {
        return edge.hold != hold && member(deadlock, model().table.thread(edge.to).stream) != nullptr;
    });
}

void DeadlockDetector::process_ended(Index index, const ProcessEnd &end) {
    for (const Descriptor &descriptor : model().table.process(index).descriptors)
        note_left_behind(descriptor.description);
    if (tracked_.empty()) return;
    before_change();
    const Process &process = model().table.process(index);
    std::string words =
        fmt::format("{} {}", process_words(model(), process.name_image, process.pid), death_words(end.status));
    if (end.certainty == EndCertainty::approximate) words += " (nobody saw when)";
    for (const Index at : tracked_) {
        Deadlock &deadlock = deadlocks_[at];
        const bool in_it = std::any_of(deadlock.members.begin(), deadlock.members.end(),
                                       [&](const DeadlockMember &one) { return one.pid == process.pid; });
        if (!in_it) continue;
        note_killed_at_once(deadlock, process, end);
        // Word of a death comes late. Meanwhile those that it set free may have ended in peace: they explain nothing.
        const std::vector<std::int32_t> &suspects = deadlock.suspects;
        if (deadlock.state == Deadlock::State::settling && !suspects.empty() &&
            std::find(suspects.begin(), suspects.end(), process.pid) == suspects.end()) {
            continue;
        }
        blame(deadlock, Deadlock::Cause::died, end.t_ns, words);
    }
    std::vector<Index> explained;
    for (const Index at : tracked_)
        if (deadlocks_[at].state == Deadlock::State::settling && deadlocks_[at].cause != Deadlock::Cause::unknown)
            explained.push_back(at);
    for (const Index at : explained) settle(at);
}

// Something about the process may have closed a circle that its threads, or those that they wait for, are in.
void DeadlockDetector::look_at_process(Index process) {
    const auto look = [&](Index thread) {
        const Index request = model().blocked_request(thread);
        if (request != kNone && by_stream_.find(model().requests[request].stream) == kNone) look_from(thread);
    };
    for (const Index thread : model().table.process(process).threads) {
        look(thread);
        if (!model().table.thread(thread).waits_for_child) continue;
        std::vector<Index> awaited;
        graph_.awaited(thread, awaited);
        for (const Index one : awaited) look(one);
    }
}

void DeadlockDetector::child_wait_begun(Index process) {
    // A parent that holds on while it waits may close a circle, or make one certain.
    before_change();
    const std::int32_t parent = model().table.process(process).pid;
    for (const Index at : tracked_) {
        Deadlock &deadlock = deadlocks_[at];
        ClosingWait before{parent, 0, model().now_ns, false, deadlock.certainty, deadlock.weaknesses};
        judge(deadlock);
        if (deadlock.certainty > before.certainty) deadlock.wait = std::move(before);
    }
    waiting_parent_ = parent;
    look_at_process(process);
    waiting_parent_ = 0;
}

void DeadlockDetector::note_killed_at_once(Deadlock &deadlock, const Process &process, const ProcessEnd &end) const {
    const bool killed = end.reason == Reason::killed && process.parent_pid == deadlock.wait.parent;
    if (deadlock.wait.parent != 0 && killed && end.t_ns - deadlock.wait.t_ns <= kAtOnceNs)
        deadlock.wait.child = process.pid;
}

// Who goes on when it is told that the child is dead may have killed it before it began to wait.
void DeadlockDetector::reaped(std::int32_t parent, std::int64_t child) {
    if (child <= 0) return;
    for (std::size_t i = over_.size(); i-- > 0;) {
        ClosingWait &wait = over_[i].wait;
        if (wait.parent != parent || wait.child != child) continue;
        if (wait.closed_it) {
            over_.erase(over_.begin() + static_cast<std::ptrdiff_t>(i));
        } else {
            over_[i].certainty = wait.certainty;
            over_[i].weaknesses = std::move(wait.weaknesses);
            wait = {};
        }
    }
}

void DeadlockDetector::acquired(Index hold) {
    const Index thread = model().table.find_stream(model().holds[hold].stream);
    if (thread == kNone || model().blocked_request(thread) == kNone) return;
    before_change();
    look_from(thread);
}

void DeadlockDetector::event(const Event &event) {
    if (event.kind != EventKind::descriptor_closed) return;
    const Index process = model().table.find_image(event.process);
    if (process != kNone) note_left_behind(model().table.description_at(process, event.fd));
}

void DeadlockDetector::note_left_behind(Index index) {
    if (index == kNone) return;
    const Description &description = model().table.description(index);
    if (description.owned.empty() || description.sharers.size() < 2) return;
    const bool wanted = std::any_of(description.owned.begin(), description.owned.end(), [&](Index ranges) {
        return !model().locks.domain(model().ranges[ranges].domain).waiters.empty();
    });
    if (wanted) left_behind_.push_back(index);
}

void DeadlockDetector::applied(const Event &event) {
    if (event.kind == EventKind::sharer_seen) {
        const Index sharer = model().table.find_pid(static_cast<std::int32_t>(event.other));
        if (sharer != kNone) look_at_process(sharer);
        model().table.for_recorded_below(static_cast<std::int32_t>(event.other),
                                         [&](Index process) { look_at_process(process); });
    }
    if (event.kind == EventKind::child_wait_ended) reaped(event.pid, static_cast<std::int64_t>(event.start));
    if (!left_behind_.empty()) {
        before_change();
        std::vector<Index> descriptions;
        descriptions.swap(left_behind_);
        for (const Index description : descriptions)
            for (const Description::Sharer &sharer : model().table.description(description).sharers)
                look_at_process(sharer.process);
    }
    for (const Index at : tracked_) judge(deadlocks_[at]);
}

void DeadlockDetector::finish(Report &report, const SourceNotes & /*notes*/) {
    before_change();
    for (const Index at : tracked_) {
        Deadlock &deadlock = deadlocks_[at];
        if (deadlock.state != Deadlock::State::open) continue;
        judge(deadlock);
        report.findings.push_back(deadlock_finding(model(), deadlock, report.from_utc_ns));
    }
    for (const Deadlock &deadlock : over_)
        report.findings.push_back(deadlock_finding(model(), deadlock, report.from_utc_ns));
    if (not_listed_ > 0) report.notes.push_back(fmt::format("{} further deadlocks are not listed", not_listed_));
}

}  // namespace

std::unique_ptr<Detector> make_deadlock(const Model &model) {
    return std::make_unique<DeadlockDetector>(model);
}

}  // namespace planloop::analysis
