// The columns of the flat exports, csv and jsonl: one row for each successful lock call.
//
//     lock_entry_id        text  16 hex digits, as in `dev locks --json`; unique in a session
//     trace_id, operation  text  what the thread was at work on
//     process              text  name; `command_line` has all of it
//     pid, tid             int
//     lock                 text  id: family, device, inode
//     family               text  flock, posix, ofd …
//     path                 text
//     mode                 text  shared or exclusive
//     range_start          int   bytes; with range_len 0 to the end of the file; 0 and 0 for whole-file locks
//     range_len            int
//     requested_at         time  UTC, RFC 3339, to the microsecond, since readers that guess types know no finer one;
//     of
//                                the first try where tries were folded
//     acquired_at          time
//     released_at          time  empty while held (ended `open`) and where it is not known (ended `unknown`)
//     acquired_unix_ns     int   acquired_at since the Unix epoch
//     wait_ns              int   from requested_at to acquired_at
//     hold_ns              int   from acquired_at to released_at, or to the end of the recording
//     ended                text  unlock, close, exit, exec, killed, converted, lost; open; unknown
//     ended_exactly        bool  whether the time of the end is exact
//     tries                int   calls that were folded into this wait
//     contended            bool  somebody stood in the way
//     blocker              text  who did longest: process name; empty: nobody, or nobody that was traced
//     blocker_pid          int   empty: nobody; 0: nobody that was traced
//     blocker_tid          int
//     blocker_ns           int   for how long
//     blockers             int   how many did
//     function             text  of the call site; empty: not known
//     file, line           text, int
//     module               text  program or library of the call site
//     command_line         text
//
// A new column goes to the end. Threads: pure functions.
#ifndef PLANLOOP_ANALYSIS_EXPORT_ROW_H
#define PLANLOOP_ANALYSIS_EXPORT_ROW_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "analysis/call_site.h"
#include "analysis/export/format.h"
#include "analysis/render/names.h"
#include "lockcore/clock.h"

namespace planloop::analysis {

inline void append_microseconds_utc(std::string &out, std::int64_t utc_ns) {
    append_utc(out, utc_ns);
    out.erase(out.size() - 4, 3);  // …123456789Z
}

inline std::string_view end_words(const Acquisition &taken) {
    switch (taken.end) {
        case Acquisition::End::open:
            return "open";
        case Acquisition::End::unknown:
            return "unknown";
        case Acquisition::End::released:
            break;
    }
    return taken.reason;
}

// Calls row.text(name, value), .time(name, optional utc_ns), .number(name, optional value) or .flag(name, value) for
// each column, in order.
template <class Row>
void visit_columns(const Acquisition &taken, Row &row) {
    using Number = std::optional<std::int64_t>;
    const TimelineEntry &call = taken.call;
    const bool released = taken.end == Acquisition::End::released;
    row.text("lock_entry_id", call.lock_entry_id);
    row.text("trace_id", call.trace_id);
    row.text("operation", call.operation);
    row.text("process", call.process);
    row.number("pid", Number(call.pid));
    row.number("tid", Number(call.tid));
    row.text("lock", call.lock);
    row.text("family", family_name(call.family));
    row.text("path", call.path);
    row.text("mode", mode_name(call.mode));
    row.number("range_start", std::optional(call.start));
    row.number("range_len", std::optional(call.len));
    row.time("requested_at", Number(taken.requested_utc_ns()));
    row.time("acquired_at", Number(call.utc_ns));
    row.time("released_at", released ? Number(taken.ended_utc_ns()) : Number());
    row.number("acquired_unix_ns", Number(call.utc_ns));
    row.number("wait_ns", Number(call.wait_ns));
    row.number("hold_ns", Number(taken.hold_ns));
    row.text("ended", end_words(taken));
    row.flag("ended_exactly", taken.end == Acquisition::End::released && taken.certainty == EndCertainty::exact);
    row.number("tries", Number(call.tries));
    row.flag("contended", !call.blocked_by.empty());
    const Blocker *const worst = call.blocked_by.empty() ? nullptr : &call.blocked_by.front();
    row.text("blocker", worst == nullptr ? std::string_view() : worst->process);
    row.number("blocker_pid", worst == nullptr ? Number() : Number(worst->pid));
    row.number("blocker_tid", worst == nullptr ? Number() : Number(worst->tid));
    row.number("blocker_ns", worst == nullptr ? Number() : Number(worst->ns));
    row.number("blockers", Number(static_cast<std::int64_t>(call.blocked_by.size())));
    const CallSite *const site = call.call_site;
    row.text("function", site == nullptr ? std::string_view() : site->function);
    row.text("file", site == nullptr ? std::string_view() : site->file);
    row.number("line", site == nullptr || site->line == 0 ? Number() : Number(site->line));
    row.text("module", site == nullptr ? std::string_view() : site->module);
    row.text("command_line", call.command_line);
}

}  // namespace planloop::analysis

#endif
