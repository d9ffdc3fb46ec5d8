// Who waits for whom right now. Nodes are threads inside a blocking lock call; such a thread waits for every hold that
// stands in its way (AND), and a hold whose description several processes share ends when any of them ends it (OR).
//
// A thread has an edge to whom it must hope for: the thread that took the lock, if that thread lives, belongs to a
// holder and is itself blocked; for other holders, their threads, if every known one is blocked. A thread that waits
// for a child stands for the blocked threads of that child, also where the child itself is not recorded and one that
// came from it is blocked: then the cycle is not certain, since that child may do something else than wait. A holder
// whose taker runs has no edge: it will go on and let go, whatever its other threads wait for.
//
// A cycle is certain when it is a knot: nobody who could release any of it still runs. Otherwise the weaknesses name
// who could.
//
// Reads the Model as it is at the time of the call. No recursion; cost: the threads that can be reached.
#ifndef PLANLOOP_ANALYSIS_WAIT_GRAPH_H
#define PLANLOOP_ANALYSIS_WAIT_GRAPH_H

#include <cstdint>
#include <vector>

#include "analysis/model.h"
#include "analysis/report.h"

namespace planloop::analysis {

struct Weakness {
    enum Kind : std::uint8_t {
        other_thread,  // of a process whose participant is blocked
        sharer,        // a process that shares the description
        taker,         // the same, and it is the one that took the lock
        between,       // not recorded; a holder waits for it, and it perhaps for a participant
    };
    Kind kind{};
    Index lock = kNone;
    std::int32_t pid = 0;
    std::uint32_t image = 0;
};

struct Verdict {
    Certainty certainty = Certainty::confirmed;
    std::vector<Weakness> weaknesses;
};

class WaitGraph {
  public:
    struct Edge {
        Index to;    // thread
        Index hold;  // why
    };

    explicit WaitGraph(const Model &model) : model_(model) {}

    // The threads of the cycles through `thread`, itself first; empty when there is none. One thread: it waits for
    // itself.
    std::vector<Index> cycle_through(Index thread) const;
    Verdict judge(const std::vector<Index> &members) const;
    void edges(Index thread, std::vector<Edge> &out) const;
    // The blocked threads of the children that `thread` waits for.
    void awaited(Index thread, std::vector<Index> &out) const;

  private:
    class Knot;

    bool somebody_waits_for(Index process, int level) const;
    bool has_waiters(const std::vector<Index> &owned) const;
    bool all_stopped(Index process) const;
    void add_stopped(Index thread, Index hold, int level, std::vector<Edge> &out) const;
    bool add_between(Index process, Index lock, int level, std::vector<Weakness> &out) const;

    const Model &model_;
};

}  // namespace planloop::analysis

#endif
