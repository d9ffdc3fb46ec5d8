// The chain of events that decided when the last program ended: backwards from its exit, each wait for a lock leads to
// whoever let go of it, a wait for a child to the child's end, a beginning to the process that forked it.
//
// Made forwards, while events pass: each thread carries the path that led to it, which its successors share. Of a path,
// the newest kDetail to 2 * kDetail steps are kept, and sums of what was before. Memory: by threads, not by events.
// A step is what one thread did until another one goes on: it ran, and mostly it then held a lock or waited for one.
// The report tells these two apart, as segments.
//
// `sooner_ns` of a step is what the one that waited for its end waited: without that wait alone, the end could have
// come so much sooner at most; something else may have been due only a little earlier.
//
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_CRITICAL_PATH_H
#define PLANLOOP_ANALYSIS_CRITICAL_PATH_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "analysis/detector.h"

namespace planloop::analysis {

class CriticalPaths : public Observer {
  public:
    static constexpr std::uint32_t kDetail = 64;  // segments that are told

    explicit CriticalPaths(const Model &model) : model_(model) {}

    void request_done(Index request, const RequestEnd &end) override;
    void hold_ended(Index hold, const HoldEnd &end) override;
    void process_ended(Index process, const ProcessEnd &end) override;
    void event(const Event &event) override;
    void fill(CriticalPath &path, std::int64_t from_utc_ns) const;

  private:
    struct Step {
        PathSegment::Kind kind{};  // of what comes at from_ns; ran: nothing does
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
        std::int64_t ran_since_ns = 0, from_ns = 0, to_ns = 0, sooner_ns = 0;
        Index lock = kNone;
        Index before = kNone;
        std::uint32_t users = 0;                   // steps and heads that lead here
        std::uint32_t linked = 1;                  // steps that can be reached, this one included
        std::uint64_t segments = 0;                // of the whole path
        std::int64_t start_ns = 0, waited_ns = 0;  // of the whole path

        bool ran() const { return ran_since_ns < from_ns; }
        bool only_ran() const { return kind == PathSegment::Kind::ran; }
        void clear() {}  // add() and newest_of() set all of it
    };
    // Where a thread is on its path: behind `step`, since then.
    struct Head {
        Index step = kNone;
        std::int64_t since_ns = 0;
        std::int64_t child_wait_ns = -1;  // it waits for a child since then
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;

        void clear() { *this = Head{}; }
    };
    struct Release {  // the last one of a domain that somebody waited for
        Head head;
        std::int64_t held_since_ns = 0, t_ns = 0;
        std::uint64_t first = 0, last = 0;
    };

    // Behind where `who` is: it ran until `from_ns`.
    Index add(const Head &who, PathSegment::Kind kind, std::int64_t from_ns, std::int64_t to_ns, std::int64_t sooner_ns,
              Index lock);
    Index newest_of(Index step);
    void use(Index step);
    void drop(Index step);
    void move_to(Head &head, Index step, std::int64_t t_ns);
    Index ran_until(const Head &head, std::int64_t t_ns);
    Head *find_head(std::uint32_t stream);
    Head *head_of_process(Index process);
    void forget(std::uint32_t stream);

    const Model &model_;
    Pool<Step> steps_;
    std::array<Index, kDetail> newest_{};
    Pool<Head> heads_;
    FlatMap head_of_stream_;
    std::unordered_map<std::int32_t, std::uint32_t> first_;  // stream of a process' first thread, by pid
    std::vector<Release> releases_;
    FlatMap release_of_domain_;
    std::map<std::int32_t, Head> exits_;  // of children that somebody may wait for, by pid
    Head last_;                           // the last exit
};

}  // namespace planloop::analysis

#endif
