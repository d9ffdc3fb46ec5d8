// What of two processes cannot have been at the same time whatever the schedule, since fork, exec, exit and wait put it
// in order: a child's first act comes after its fork, what a parent does after it waited for a child comes after all of
// that child. Mere time orders nothing.
//
// Whoever is told of the end of a child that recorded something records that, and from then on each child that it
// makes; it begins with a list of those that it had made before. So of children that both recorded, the one is before
// the other if the parent was told of its end before it made the other. Of a child that no parent speaks of (system(3)
// and pclose(3) wait inside libc, a parent may be untraced or killed) the end stands for the wait, since who starts one
// program after another mostly waits in between: they count as ordered when they ran one after the other, also where
// that was luck.
//
// Grows with processes. Threads of one process are not ordered. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_PROCESS_ORDER_H
#define PLANLOOP_ANALYSIS_PROCESS_ORDER_H

#include <cstdint>
#include <vector>

#include "analysis/event.h"
#include "analysis/flat_map.h"

namespace planloop::analysis {

class ProcessOrder {
  public:
    // A moment of a process.
    struct Place {
        Index process = kNone;
        std::int64_t t_ns = 0;
    };

    explicit ProcessOrder(const EventSource &source) : source_(source) {}

    void event(const Event &event);
    Place place(std::int32_t pid, std::int64_t t_ns) { return {node_of(pid), t_ns}; }
    // When the process last forked or waited: between two such moments it is ordered alike with everybody.
    std::int64_t last_change_ns(std::int32_t pid);
    // Everything up to `one` was over when `other` began to be possible.
    bool before(const Place &one, const Place &other) const;

  private:
    struct Node {
        std::int32_t pid = 0;
        Index parent = kNone;
        std::int64_t made_ns = -1;      // at the latest, as its parent says; -1: it does not
        std::int64_t seen_ns = 0;       // first sign of it
        std::uint64_t start_ticks = 0;  // since boot; 0: unknown
        std::int64_t ended_ns = -1, waited_ns = -1;
        std::int64_t changed_ns = 0;
        // Its children that it spoke of since it last heard that none is left, the newest first; each once.
        Index newest_child = kNone, older_sibling = kNone;
        bool spoken_of = false;
    };

    Index node_of(std::int32_t pid);
    Index make(std::int32_t pid, Index parent, std::int64_t t_ns);
    void forked(const Event &event);
    void child_made(const Event &event);
    void started(const Event &event);
    void waited(const Event &event);
    void speak_of(Index child, Index parent);
    void told_over(Index child, Index parent, std::int64_t t_ns);
    std::int64_t born_ns(const Node &node) const;
    std::int64_t over_ns(const Node &node) const;  // for its parent; -1: it is not

    const EventSource &source_;
    std::vector<Node> nodes_;
    FlatMap by_pid_;
    std::int64_t boot_ns_ = 0;  // upper bound
    bool boot_known_ = false;
};

}  // namespace planloop::analysis

#endif
