// Where events come from: all spools of a session and its planloop.jsonl, merged by time into one stream.
//
// What cannot be read is told in notes() and does not keep the rest from being shown. Events of the shim that were also
// exported to planloop.jsonl are taken from the spool, and from the log only when that spool is gone, so that nothing
// counts twice.
//
// Numbers: the six top bits of Event::process, thread, file and description tell the spool (0 to 61, by age), 62 stands
// for planloop.jsonl; so numbers of two spools never meet. Of more spools the newest are read. Event::entry does
// likewise with its top byte. A `not_traced` event's `file` gives the path of the program that was started. A log line
// without a lock (the Python planloop's) is about the lock `session`. A `child_wait_ended` event's `start` is what the
// call returned.
//
// At equal times a release sorts before an acquisition, a fork and a process start before everything else.
// Times never go back, even where a damaged file says so.
//
// Errors: only a session that is not there. Threads: one user at a time.
#ifndef PLANLOOP_ANALYSIS_SOURCE_EVENT_SOURCE_H
#define PLANLOOP_ANALYSIS_SOURCE_EVENT_SOURCE_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "analysis/event.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop::analysis {

struct SourceOptions {
    // The session is being recorded into: next() gives false for now and goes on at a later call, after a look for new
    // events. Events younger than `hold_back_ns` wait, since a stamp is made a moment before it can be seen.
    bool follow = false;
    std::int64_t hold_back_ns = 5'000'000;
    // Asked before each such look: whether those who write have ended, longer than `hold_back_ns` ago. Then what they
    // began to record and did not finish is not waited for.
    std::function<bool()> over = {};
    // The path of a spool that is read before others are, and numbered as if it were the newest.
    std::string own_spool = {};
};

// The number of a spool of that age: `older` ones can be read, too.
std::uint32_t spool_number(std::size_t older);

Result<std::unique_ptr<EventSource>> open_session(const Session &session, const SourceOptions &options = {});

}  // namespace planloop::analysis

#endif
