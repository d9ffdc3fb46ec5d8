// Who is to blame for waits, and how much: cascaded redistribution (Zhou et al., "wPerf", OSDI 2018), done while events
// pass, in whole nanoseconds.
//
// At each moment a request that waits is charged to those that stand in its way, in equal parts when they are several
// (threads, not holds; a nanosecond that cannot be divided goes to the first). Who holds a lock and is itself blocked
// in a lock call passes its part on to the holders of that lock, and so on: A waits for B during [0,100], B for C
// during [20,100]: B is charged 20, C 80. Who holds a lock and waits for a child that is blocked passes on as that
// child does.
//
// A circle has nobody to pass on to: the part of a wait that runs into one stays with the hold by which it came into
// it, so in a deadlock each member is charged by the one that waits for it. Where there are more than kMostSteps to go,
// in a long chain or along all branches of chains, none is gone: who stands directly in the way is charged.
//
// It is the thread that took a lock which is charged; once its process has let go of what others still hold, the first
// of these. The time in which nobody stood in the way (from a release until the next one runs) is the hand-over's; a
// wait for nobody that was traced is charged to nobody known. So charges add up to the waits, exactly.
//
// A try that does not block is a wait only if it is repeated, up to the last try; who tries again and again is not
// blocked, so it passes nothing on.
//
// How: a request is settled (charged for the time since) before anything changes in whom it would be charged to. To
// settle one too many changes nothing. Cost: a change of holds settles the waiters of that lock, all that are alike as
// one (crowd.h), and those that wait for somebody among these, kMostSteps deep: so a ring of any size costs its size,
// though each of its members may be what all the others wait for. Memory: by process images and call sites that others
// waited for, and by open requests.
//
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_CULPRITS_H
#define PLANLOOP_ANALYSIS_CULPRITS_H

#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "analysis/model.h"

namespace planloop::analysis {

class Culprits {
  public:
    static constexpr std::uint32_t kMostSteps = 256;  // from a wait to all that it is charged to
    static constexpr std::size_t kMostRows = 1'000;   // of a table; what is beyond is one row

    explicit Culprits(Model &model) : model_(model) {}

    // Charges what the request waited since it was last settled. Whoever calls it says before, once, that things may
    // have changed since (before_change, settle_behind, forget_holders do).
    void settle(Index index) {
        Request &request = model_.requests[index];
        const std::int64_t ns = model_.now_ns - request.charged_to;
        if (ns <= 0) return;
        request.charged_to = model_.now_ns;
        if (request.blockers == 0)
            request.gap_ns += ns;
        else
            settle_blocked(index, ns);
    }
    // To be called before the request's blockers change.
    void before_change(Index request);
    // All that wait, once and for all: the recording is over, and nothing changes any more.
    void settle_for_good();
    // The same for all that wait, directly or not, for a lock that the process may have or that its waiting parent has;
    // true if there are any. To be called before it stops, goes on, or ends.
    bool settle_behind(Index process);
    // The process lets go of these Ranges, but others may hold on: then they are to blame.
    void forget_holders(const std::vector<Index> &owned);
    // The request's blockers changed: notes whether its thread can go on.
    void update_stopped(Request &request);
    // Somebody now waits for this hold, whose owner may itself be waiting.
    void mark_bridges(const Hold &hold);
    // The process begins to wait for a child; somebody may wait for what it holds.
    void mark_waiting(Index process);
    // Something stands in the request's way for the first time.
    void look_at(Request &request);
    // Members of crowds that somebody waits for since they were last asked about.
    std::vector<Index> &bridges_in_crowds() { return bridges_in_crowds_; }
    // Leaves with the request what it was charged as a member of the crowd.
    void carry(Request &request, const Crowd &crowd) const;
    // Moves what stands in Request::blame into its charges.
    static void flush(Request &request);
    // A series of tries may end here.
    static void keep(Request &request);
    // The request ended after it had waited for so long. `given_up`: with the last try that was kept.
    void commit(Request &request, std::int64_t wait_ns, bool given_up = false);

    void fill(BlameTables &tables, std::size_t named_call_sites) const;

  private:
    static constexpr int kGenerations = 8;  // of processes that wait for their children, one within the other

    struct Entry {
        std::uint32_t image = 0;  // of who holds
        std::uint32_t taker = 0;  // image of who took it
        std::uint32_t site = 0;
        std::int32_t pid = 0;
        std::int64_t caused_ns = 0;
        Index process = kNone, operation = kNone, call_site = kNone;  // groups
    };
    struct Group {  // entries that are one row of a table
        std::uint64_t waits = 0;
        std::uint64_t counted = 0;  // the last wait that was
    };
    using SiteKey = std::pair<std::uint32_t, std::string>;
    struct Step {
        Index request;
        Index via;  // hold that led there
    };

    struct Part {  // of a wait; of the hold's culprit, or of one that is known
        Index hold, culprit;
        std::int64_t ns;
    };

    void settle_blocked(Index request, std::int64_t ns);
    void settle_chain(Index request, std::int64_t ns);
    SiteKey site_key(const Entry &entry) const;
    Index culprit_of(Index hold) {
        const Hold &known = model_.holds[hold];
        return known.culprit != kNone ? known.culprit : find_culprit(hold, responsible(known));
    }
    Index find_culprit(Index hold, Index responsible);
    bool next_of(Index request, Index &next, Index &via) const;
    void resolve(Index request);
    void note_end(Request &request, Request::Ends ends, Index ends_at, std::uint32_t after) const;
    void close_circle(std::size_t begin, std::uint32_t &length);
    void pass(Index request, std::int64_t ns);
    void pass_to(Index hold, std::int64_t ns);
    void follow(Index next, Index via, std::int64_t ns);
    void divide(Index origin, std::int64_t ns);
    static void add_charge(Request &request, Index culprit, std::int64_t ns);
    void charge(Index culprit, std::int64_t ns);
    void charge(Crowd &crowd, Index culprit, std::int64_t ns);
    std::int64_t take_back(Request &request, std::int64_t ns);
    bool taker_has(const Hold &hold) const;
    Index responsible(const Hold &hold) const;
    void stopped_behind(const Hold &hold, std::vector<Index> &out) const;
    void add_stopped(Index thread, int level, std::vector<Index> &out) const;
    void mark_thread(Index thread, int level);
    template <class Visit>
    void for_owned(const Process &process, Visit visit) const;
    Index waiting_parent(const Process &process) const;
    bool passes_on(Index process) const;
    bool taker_runs(const Hold &hold) const;
    void mark(Request &request);
    bool settle_owned(const std::vector<Index> &owned);
    static void compact(Request &request);  // there are charges

    Model &model_;
    std::map<std::tuple<std::uint32_t, std::uint32_t, std::uint32_t>, Index> by_name_;
    std::vector<Entry> entries_;
    std::array<Index, 256> recent_{};                                    // places in entries_, to be asked first
    std::map<std::pair<std::int32_t, std::uint64_t>, Index> processes_;  // by pid and start time
    std::map<std::string, Index> operations_;
    std::map<SiteKey, Index> sites_;
    std::vector<Group> groups_;
    std::int64_t waited_ns_ = 0, unknown_ns_ = 0, handover_ns_ = 0;
    std::uint64_t waits_ = 0;

    Request *origin_ = nullptr;  // being settled
    std::vector<Step> path_;
    std::vector<Part> parts_;
    std::uint32_t steps_ = 0;
    bool settled_for_good_ = false;
    std::uint32_t epoch_ = 0;  // between two changes of who waits for whom
    std::vector<Index> chain_;
    std::vector<Index> to_settle_,
        next_to_settle_;  // processes: as far from the change as one another, and a step more
    std::vector<Index> bridges_in_crowds_;
    std::vector<Index> to_look_at_;
};

}  // namespace planloop::analysis

#endif
