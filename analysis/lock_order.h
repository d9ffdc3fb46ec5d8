// Lock order: who asked for what while holding what, and the circles in which such requests could have met in another
// schedule. Follows the lock dependency relation of P. Joshi et al., "A Randomized Dynamic Program Analysis Technique
// for Detecting Real Deadlocks" (PLDI 2009), with shared modes, byte ranges and the order of processes added.
#ifndef PLANLOOP_ANALYSIS_LOCK_ORDER_H
#define PLANLOOP_ANALYSIS_LOCK_ORDER_H

#include <cstdint>
#include <vector>

#include "analysis/held_set.h"
#include "analysis/process_order.h"
#include "analysis/report.h"

namespace planloop::analysis {

// A thread that held `held`, among `all`, asked for `wanted` in a call that may wait.
struct Dependency {
    LockPart held, wanted;
    std::vector<LockPart> all;
    ProcessOrder::Place place;
    std::int64_t t_ns = 0;
    std::uint64_t times = 1;
    std::uint32_t image = 0, stream = 0;
    std::int32_t pid = 0, tid = 0;
};

// When, where and how often it was seen.
void add_witness(Participant &participant, const Model &model, const Dependency &seen, std::int64_t from_utc_ns);

// The two can be in one deadlock: distinct threads that nothing puts in order, and nothing that one holds keeps the
// other from holding what it holds.
bool can_coincide(const Dependency &one, const Dependency &other, const ProcessOrder &order);

struct Circles {
    // Places among the dependencies, each waits for the next and the last for the first. Of circles over the same
    // locks one, and none that contains a shorter one.
    std::vector<std::vector<std::size_t>> found;
    bool complete = true;  // false: there was too much to look at
};

// Exponential in theory, so the work is bounded; shortest circles come first.
Circles find_circles(const std::vector<const Dependency *> &dependencies, const ProcessOrder &order);

}  // namespace planloop::analysis

#endif
