// Open lock calls: who waits, what stands in the way, and for how long each blocker did.
//
// A request is listed in its domain while it waits, with one Blame for each thread whose hold conflicts with it; a
// Blame's clock runs while at least one segment of that thread's holds is in the way, so overlapping holds of
// one thread count once. Cost of a change of holds: the waiters of that domain, all that are alike as one (crowd.h).
//
// Threads that poll (failed tries again and again) have one request that is parked between tries.
#ifndef PLANLOOP_ANALYSIS_WAITS_H
#define PLANLOOP_ANALYSIS_WAITS_H

#include "analysis/crowds.h"
#include "analysis/culprits.h"
#include "analysis/detector.h"
#include "analysis/model.h"

namespace planloop::analysis {

// Tries of one thread on one lock belong to one wait when no more than this lies between them.
inline constexpr std::int64_t kPollGapNs = 2'000'000'000;
// A blocking call that took longer than this while no traced hold was in its way was kept waiting by somebody
// who is not traced. Below, it may as well have been without a processor: on a busy machine that takes milliseconds.
inline constexpr std::int64_t kUntracedWaitNs = 20'000'000;

class Waits {
  public:
    Waits(Model &model, Observer &observer)
        : model_(model), observer_(observer), culprits_(model), crowds_(model, culprits_) {}

    // The request of a lock call, resumed if the call continues a series of tries. `owner` kNone: it can wait
    // for nothing that is known.
    Index begin(const Event &event, Index process, Index thread, Index lock, Index owner);
    Index find(Index thread, std::uint64_t entry) const;

    void settle(Index request, std::int64_t now_ns);  // brings blame up to date
    // Who stood in the way when a call ends, longest first; adds the untraced blocker where one must have been. The
    // request must then be parked or ended.
    void conclude(Index request, const RequestEnd &end);
    // A wait that is over, in the statistics.
    void count(Request &request, const WaitEnd &end);
    void park(Index request, std::int64_t now_ns);  // may go on
    void end(Index request) {                       // takes it out of everything; it is no more
        withdraw(request);
        model_.requests.release(request);
    }
    void withdraw(Index request);  // the same, but it may be looked at until it is released
    // The process is about to end, to become another program, or to begin or end a wait for a child.
    void before_process_changes(Index process);
    void before_descriptor_closes(Index description) {
        culprits_.forget_holders(model_.table.description(description).owned);
    }
    Culprits &culprits() { return culprits_; }
    void expire_polls(Index thread);  // they do not go on
    void expire(Index request);
    void event_over() { crowds_.part_bridges(); }
    // The recording is over: whoever waits then waits alone, and has one Blame for each thread.
    void part_crowds();

    // A segment of a hold came or went.
    void obstruct(const Ranges &owner, const RangeMap::Segment &segment);
    void clear_way(const Ranges &owner, const RangeMap::Segment &segment);

  private:
    Index resume_poll(const Event &event, Index thread, Index lock, std::uint64_t last);
    void enlist(Index request);
    void rebase(Index request, Index owner, std::int64_t now_ns);
    void add_obstacle(Request &request, Index hold, std::int64_t now_ns);
    static void merge(Request &request);
    void remove_obstacle(Request &request, Index hold, std::int64_t now_ns);
    Index other_hold(const Request &request, Index than) const;
    bool in_the_way(const Request &request, const Ranges &owner, const RangeMap::Segment &segment) const;
    bool other_may_have_it(const Request &request) const;
    void before_change(Index request);
    bool conclude_in_crowd(Index request, const RequestEnd &end);

    Model &model_;
    Observer &observer_;
    Culprits culprits_;
    Crowds crowds_;
};

}  // namespace planloop::analysis

#endif
