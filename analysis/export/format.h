// A session in the formats of other tools: `planloop dev export`. A format is one file here (export/<name>.cpp) and one
// row of the table in formats.cpp.
//
// The analysis runs once, and an Exporter is told of each thing as it becomes complete: a wait when it is over, an
// acquisition when it is released. So a format streams: what is kept is what is open, and what the format itself sums
// up by lock, thread, call site or operation; never the events.
//
// Sums: the `wait_ns` of all waits and the `hold_ns` of all acquisitions of a lock add up to LockRow::wait.total and
// LockRow::hold.total, whatever was recorded. `acquisition` alone leaves out the waits that brought no lock.
//
// Text from traced programs is bytes; every format writes it as UTF-8, with U+FFFD in place of what is broken.
//
// Threads: externally synchronised. Errors: those of the caller's Write, which the caller keeps.
#ifndef PLANLOOP_ANALYSIS_EXPORT_FORMAT_H
#define PLANLOOP_ANALYSIS_EXPORT_FORMAT_H

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "analysis/report.h"
#include "analysis/session_records.h"

namespace planloop::analysis {

// Takes the file in pieces, in order.
using Write = std::function<void(std::string_view)>;

// One successful lock call.
struct Acquisition {
    enum class End : std::uint8_t {
        released,
        open,     // at the end of the recording; held until then
        unknown,  // whose lock it became is not known, nor how long it was held: hold_ns is 0
    };

    TimelineEntry call;  // lock_acquired
    End end{};
    std::int64_t hold_ns = 0;
    std::string reason;                            // released
    EndCertainty certainty = EndCertainty::exact;  // of the time of the end
    bool awaited = false;                          // at its end somebody waited for this lock, or another of its file

    std::int64_t requested_utc_ns() const { return call.utc_ns - call.wait_ns; }
    std::int64_t ended_utc_ns() const { return call.utc_ns + hold_ns; }
};

class Exporter {
  public:
    virtual ~Exporter() = default;
    virtual void entry(const TimelineEntry & /*entry*/) {}      // the timeline, in time order
    virtual void acquisition(const Acquisition & /*taken*/) {}  // in the order in which they ended, the open ones last
    // Waits that brought no lock, in no certain order; see analyse().
    virtual void vain_wait(const TimelineEntry & /*wait*/) {}
    // What the session's instrumented operations left: after all locks, only where Format::wants_records.
    virtual void records(const SessionRecords & /*records*/) {}
    virtual void finish(const Report &report) = 0;
};

struct Format {
    std::string_view name;
    std::string_view what;   // it contains
    std::string_view opens;  // how to look at it
    bool binary = false;
    bool wants_records = false;
    std::unique_ptr<Exporter> (*make)(const Write &write) = nullptr;  // `write` outlives it
};

std::span<const Format> formats();
const Format *find_format(std::string_view name);  // nullptr: there is none

// Writes the whole file; AnalysisOptions::timeline_call_sites is set by it. Notes of the report are the caller's to
// tell.
Report export_session(EventSource &source, AnalysisOptions options, const Format &format, const SessionRecords &records,
                      const Write &write);

// The 16 hex digits by which `dev locks` names a lock call.
std::string entry_words(std::uint64_t entry);
// "flock 25301 (403ms), perl 77 (1ms)", most to blame first; "" for nobody.
std::string blocker_words(const std::vector<Blocker> &blockers);
// What became of a wait that brought no lock: "EINTR", "process ended", "still waiting".
std::string vain_outcome(const TimelineEntry &wait);

}  // namespace planloop::analysis

#endif
