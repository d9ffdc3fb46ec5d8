// What of a report its reader wants to see. The analysis reads everything, so that a verdict stays true whatever is
// shown of it: who holds what at `since` was settled before, what became of it at `until` comes after. A Filter decides
// only what is told.
//
//     criterion          timeline            held, waiting         findings                       rows of locks
//     locks, families    calls on it         on it                 about it or naming it          of locks that what
//     pids, processes,   calls of it         holders; waiters      a participant or one who also  is shown is about:
//     traces                                                       holds                          sums of everybody's
//     since, until       events in between   overlap it            overlap it                     calls
//     findings           -                   -                     of that kind                   -
//
// Criteria must all be met, by the same process where several are about one; of several values of one criterion, one is
// enough. A finding that is about no lock and no process (lost_events) is about all. The sums over the session (blame,
// call sites, critical path) are not narrowed; what shows them says so or leaves them out.
//
// Units: ns since the Unix epoch, UTC. Errors: none. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_FILTER_H
#define PLANLOOP_ANALYSIS_FILTER_H

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace planloop::analysis {

struct Report;
struct TimelineEntry;

// A moment as a person says it.
struct Moment {
    std::int64_t ns = 0;         // since the epoch or, `of_day`, since midnight
    std::int64_t precision = 1;  // ns; an `until` that is cut to a second lasts for all of that second
    bool of_day = false;  // of the day on which the recording began; of the next one if that is over 12 h earlier
};

struct Filter {
    std::vector<std::string> locks;  // paths as recorded, or ids
    std::vector<std::int32_t> pids;
    std::vector<std::string> processes;  // short names
    std::vector<std::string> traces;     // beginnings of trace ids
    std::vector<std::string> families;   // by the names that people see
    std::vector<std::string> findings;   // kinds
    std::optional<Moment> since, until;
    std::string words;  // as the user said it, for the report; empty: nothing was asked for, everything is shown

    bool empty() const { return words.empty(); }
};

// A filter in use, for one report. Keep it as long as its analysis.
class Shown {
  public:
    explicit Shown(const Filter &filter) : filter_(filter) {}

    // Settles what `since` and `until` mean. Before anything else; `from_utc_ns` is that of the first event.
    void begin_at(std::int64_t from_utc_ns);
    // Inclusive; the least and the greatest number without a `since` or `until`.
    std::int64_t since_ns() const { return since_ns_; }
    std::int64_t until_ns() const { return until_ns_; }

    // Whether it is told; then its lock keeps its row.
    bool entry(const TimelineEntry &entry);
    // The same for a call and what became of it, which together take from `from_ns` to `to_ns`.
    bool call(const TimelineEntry &entry, std::int64_t from_ns, std::int64_t to_ns);

    // Takes from a finished report what is not told, and says in it that this was done.
    void narrow(Report &report) const;

  private:
    bool in_time(std::int64_t from_ns, std::int64_t to_ns) const { return from_ns <= until_ns_ && to_ns >= since_ns_; }
    bool lock_told(std::string_view id, std::string_view path, std::string_view family) const;
    bool process_told(std::int32_t pid, std::string_view process, std::string_view trace_id) const;

    const Filter &filter_;
    std::int64_t since_ns_ = INT64_MIN, until_ns_ = INT64_MAX;
    std::set<std::string, std::less<>> locks_;  // ids that entries were shown of
};

}  // namespace planloop::analysis

#endif
