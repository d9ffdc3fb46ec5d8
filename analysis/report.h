// The result of an analysis as plain data: what `planloop dev locks --json` prints (schema planloop.locks/1) and what
// every other rendering starts from. Times are nanoseconds; `t_ns` and `since_ns` count from `recorded.from`.
//
// The timeline is not part of it: it grows with the events, so it is handed to a sink while it is made.
#ifndef PLANLOOP_ANALYSIS_REPORT_H
#define PLANLOOP_ANALYSIS_REPORT_H

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "analysis/event.h"
#include "analysis/filter.h"

namespace planloop::analysis {

struct Blocker {
    std::int32_t pid = 0, tid = 0;            // pid 0: nobody that was traced
    std::int64_t ns = 0;                      // how much of the wait it stood in the way
    std::string process = {}, trace_id = {};  // its name, and what it was at work on when it took that hold
    std::uint64_t entry = 0;                  // lock call of its hold that stood in the way last; 0: not known
    std::int64_t until_utc_ns = 0;            // when that hold ceased to stand in the way; 0: it never did
};

// How sure the time is at which a hold ended.
enum class EndCertainty : std::uint8_t { exact, approximate };

struct TimelineEntry {
    std::int64_t t_ns = 0;
    std::int64_t utc_ns = 0;
    EventKind kind{};  // one of the four lock_*
    std::string trace_id, operation, lock_entry_id;
    std::uint64_t entry = 0;  // lock_entry_id as a number
    std::int32_t pid = 0, tid = 0;
    std::string process, command_line;
    std::string lock, path;  // lock id; path for people
    wire::Family family{};
    wire::Mode mode{};
    std::uint64_t start = 0, len = 0;
    std::int64_t wait_ns = 0;                      // lock_acquired, lock_failed
    std::int64_t hold_ns = 0;                      // lock_released
    std::string reason;                            // lock_released: unlock, close, exit, exec, killed, converted, lost
    EndCertainty certainty = EndCertainty::exact;  // lock_released
    int error = 0;                                 // lock_failed
    std::uint32_t tries = 1;                       // lock_failed, lock_acquired: polls folded into this wait
    std::vector<Blocker> blocked_by;               // lock_acquired, lock_failed, and lock_requested while still waiting
    bool recorded_itself = false;         // by the program, which links lockcore, and not by the preloaded library
    const CallSite *call_site = nullptr;  // nullptr: not known or not asked for; lives as long as the source
    bool blocking = false;                // the call may wait; not for lock_released
    bool owned = true;                    // lock_acquired: false when the owner is not known; no release will follow
    bool awaited = false;                 // lock_released: somebody waits for this lock or another of its file
};

// Of durations, in ns. Count, total, mean and maximum are exact; a quantile is off by at most kQuantileError of itself.
struct Distribution {
    std::int64_t total = 0, max = 0, p50 = 0, p99 = 0;
    std::int64_t mean = 0, p90 = 0;
    std::uint64_t count = 0;
};
inline constexpr double kQuantileError = 1.0 / 128;

// How many blocking calls waited at a time. A call waits from the moment at which somebody stands in its way until it
// comes back.
struct QueueDepth {
    struct Step {
        std::uint32_t max = 0;
        double mean = 0;  // over the step's time
    };
    std::uint32_t max = 0;
    double mean = 0;           // over the whole recording
    std::int64_t step_ns = 0;  // length of a step
    std::int64_t from_ns = 0;  // where the first begins
    std::vector<Step> steps;   // 128 at most; none when nobody ever waited
};

struct LockRow {
    std::string id, path;
    wire::Family family{};
    std::uint64_t acquisitions = 0, contended = 0, failed = 0;
    Distribution wait, hold;     // of all calls, also of those that nobody stood in the way of
    std::int64_t waited_ns = 0;  // time that calls waited for somebody; a share of Blame's `waited_ns`
    QueueDepth queue;
};

// Who made others wait. A wait is charged to whoever held the lock meanwhile, to several of them in equal parts; a
// holder that itself waited for a lock passes its part on to that lock's holders (see blame.h for the rules).
struct Culprit {
    std::int64_t caused_ns = 0;  // of the waits of others; a share of Blame's `waited_ns`
    std::uint64_t waits = 0;     // that it had a part in
    // What it is, as the table says.
    std::int32_t pid = 0;               // by process
    std::string process, command_line;  // by process; by call site: of the first process that was seen there
    std::string operation;              // by operation
    std::string site;                   // by call site: its words; empty: it is not known
    CallSite where;                     // by call site
    std::uint32_t number = 0;           // by call site: Event::site
};

struct BlameTables {
    std::int64_t waited_ns = 0;    // sum of all waits for somebody; the sum of what follows, exactly
    std::int64_t unknown_ns = 0;   // for holders that were not traced
    std::int64_t handover_ns = 0;  // nobody held it any more, and the next one did not run yet
    std::uint64_t waits = 0;
    std::vector<Culprit> processes, call_sites, operations;  // each by caused_ns, most first; each table adds up alone
};

// Statistics of one place in a program that makes lock calls.
struct CallSiteRow {
    std::string site, process;  // as in Culprit
    CallSite where;
    std::uint64_t acquisitions = 0, contended = 0, failed = 0;
    Distribution wait, hold;  // hold: of what was acquired here
};

// A part of the chain of events that decided when the recording ended: who had to get on for the next one to get on.
struct PathSegment {
    enum class Kind : std::uint8_t {
        ran,     // until it ended, forked the next one, or was waited for by it
        held,    // until it released `lock`, for which the next one waited
        waited,  // for `lock`, which somebody held who was not traced
    };
    Kind kind{};
    std::int64_t from_ns = 0, to_ns = 0;
    std::int32_t pid = 0, tid = 0;
    std::string process, lock, path;
    std::int64_t sooner_ns = 0;  // how much sooner the end would have come, at most, had the next one not waited here
};

struct CriticalPath {
    std::vector<PathSegment> segments;  // in time order, the last ends with the last exit; the newest 64
    std::uint64_t earlier = 0;          // segments before them
    std::int64_t waited_ns = 0;         // sum of `sooner_ns` of all segments, also of the earlier ones
    std::int64_t total_ns = 0;          // from the start of the first to the end of the last
};

struct Holder {
    std::int32_t pid = 0;
    std::string process;
};

struct HeldLock {
    std::string lock, path, lock_entry_id, process, trace_id;
    wire::Mode mode{};
    std::int32_t pid = 0, tid = 0;
    std::int64_t since_ns = 0;
    std::uint64_t start = 0, len = 0;
    Holder acquired_by;
    std::vector<Holder> holders;
};

struct WaitingRequest {
    std::string lock, path, lock_entry_id, process, trace_id;
    wire::Mode mode{};
    std::int32_t pid = 0, tid = 0;
    std::int64_t since_ns = 0;
    std::uint64_t start = 0, len = 0;
    std::vector<Blocker> blocked_by;
};

// The nearest ancestor that runs another command: of a flock(1), the script that calls it.
struct Starter {
    std::int32_t pid = 0;  // 0: not known
    std::string process, command_line;
};

struct ByteRange {
    std::uint64_t start = 0, len = 0;  // len 0: to the end of the file
    bool whole() const { return start == 0 && len == 0; }
};
// "bytes 0-99", "byte 7", "bytes 10 to the end"; of a whole file nothing.
std::string byte_words(const ByteRange &range);
// The same behind a lock's name: " (byte 7)".
std::string in_brackets(const ByteRange &range);

struct Participant {
    std::int32_t pid = 0, tid = 0;
    std::string process, command_line, trace_id;
    std::vector<std::string> holds;      // lock ids
    std::string waits_for;               // lock id
    std::vector<std::int32_t> waits_on;  // pids
    ByteRange wanted = {};               // of `waits_for`
    std::vector<ByteRange> held = {};    // of each of `holds`; shorter or empty: not told

    Starter started_by = {};

    // The evidence, where a finding has it.
    std::int64_t asked_ns = -1;             // when it asked for `waits_for`; -1: not told
    std::uint64_t times = 1;                // how often it was seen doing so
    CallSite asked_at = {};                 // where it asked
    std::vector<CallSite> holds_from = {};  // where it took each of `holds`; shorter or empty: not told

    // Lock ids, of a deadlock: held not by it but by a process that waits for it to end.
    std::vector<std::string> parent_holds = {};
};

enum class Severity : std::uint8_t { info, warning, error };
enum class Certainty : std::uint8_t { possible, likely, confirmed };

struct Finding {
    std::string kind;  // deadlock, killed_while_holding, lost_events, not_traced …
    Severity severity = Severity::warning;
    Certainty certainty = Certainty::confirmed;
    std::string summary;                   // plain sentences: what happened, the evidence, what to do
    std::int64_t from_ns = 0, to_ns = -1;  // -1: still in force
    std::string resolved_by;               // a deadlock in the past: what ended it
    std::vector<Participant> participants;
    std::vector<Holder> also_held_by;
    std::vector<std::string> locks;  // ids
};

// A thread that held `held` asked for `wanted` in a call that may wait.
struct LockOrder {
    std::string held, wanted;  // lock ids
    std::uint64_t times = 0;
};

struct Report {
    std::string session;
    std::int64_t from_utc_ns = 0, to_utc_ns = 0;
    std::uint64_t processes = 0, threads = 0, events = 0, dropped = 0;
    std::vector<LockRow> locks;  // by total wait, longest first
    BlameTables blame;
    std::vector<CallSiteRow> call_sites;  // by total wait, longest first
    CriticalPath critical_path;
    std::vector<HeldLock> held;  // at the end of the recording
    std::vector<WaitingRequest> waiting;
    std::vector<LockOrder> order;    // by ids; of the first 20,000 pairs of ranges
    std::vector<Finding> findings;   // by severity, then time
    std::vector<std::string> notes;  // what could not be read or is not known, one line each
    std::string shown;               // Filter::words; empty: this is everything
    std::uint64_t findings_not_shown = 0;
    std::uint64_t lines_left_out = 0;  // of the timeline, beyond AnalysisOptions::most_lines
};

// A circular wait that is in force, as far as has been read.
struct StandingDeadlock {
    std::uint64_t id = 0;                // of its own for as long as it stands
    Finding finding;                     // from_ns counts from the epoch
    std::vector<std::uint64_t> entries;  // Event::entry of each participant's blocked call
};

// Told while the analysis goes on, by it. What stands in the recording may be over in the world.
class DeadlockListener {
  public:
    virtual ~DeadlockListener() = default;
    virtual void deadlock_stands(const StandingDeadlock &deadlock) = 0;  // again when it is known to be more certain
    virtual void deadlock_over(std::uint64_t id) = 0;                    // or part of a larger one, which is told next
};

using TimelineSink = std::function<void(const TimelineEntry &)>;

struct AnalysisOptions {
    std::string session;
    // Tells whether a process (pid, start time in clock ticks or 0) still runs; a session of an earlier boot has
    // none. Used only for what has no recorded end.
    std::function<bool(std::int32_t pid, std::uint64_t start_time)> alive;
    // UTC now; 0: not known. What a process that still runs holds or waits for lasts until now, not only until the last
    // event: in a program that hangs there are no more events.
    std::int64_t now_utc_ns = 0;
    // Rows of each table of call sites whose names are looked up; the others are told by module and offset.
    std::size_t named_call_sites = 50;
    // Look up the call site of each timeline entry; findings have theirs in any case.
    bool timeline_call_sites = false;
    // Waits and holds that last at least this long are findings.
    std::int64_t long_wait_ns = 10'000'000'000, long_hold_ns = 10'000'000'000;
    DeadlockListener *listener = nullptr;  // borrowed
    Filter filter = {};                    // what the sink and the report are told; the listener is told everything
    // Of the timeline that the sink is told; Report::lines_left_out are the rest.
    std::uint64_t most_lines = UINT64_MAX;
    // A line whose meaning only later events can tell (why a hold ended) is kept back, and all lines after it, until
    // they come. Not for longer than this, in recorded time; 0: as long as it takes, within bounded memory.
    std::int64_t longest_delay_ns = 0;
};

// Reads the source to its end and draws the conclusions. Memory grows with locks, threads and open requests, not with
// events. The sink, if any, gets the timeline in time order as it becomes certain.
//
// `vain_waits` gets each wait that brought no lock, in no certain order: with the lock_acquired entries they are what
// LockRow::wait sums up. An entry is of kind lock_failed; `wait_ns` is all of the wait, a series of tries counting as
// one; `error` 0 stands for a wait that lasts until the end of the recording, ECANCELED for one whose process ended. It
// gets all of them, whatever the filter.
Report analyse(EventSource &source, const AnalysisOptions &options, const TimelineSink &sink = {},
               const TimelineSink &vain_waits = {});

}  // namespace planloop::analysis

#endif
