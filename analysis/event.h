// What the analysis consumes: one stream of events, merged by time over all threads of all processes, whatever
// they were recorded in (spools of the shim, planloop.jsonl of instrumented programs).
//
// A spool record of a lock call becomes two events: lock_requested at its begin, and lock_acquired or lock_failed at
// its end; a pending one stays a request. An Event is plain data and owns nothing; names, paths and command lines are
// looked up by `process` and `file` in the EventSource that produced it.
#ifndef PLANLOOP_ANALYSIS_EVENT_H
#define PLANLOOP_ANALYSIS_EVENT_H

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/call_site.h"
#include "lockcore/wire/record.h"

namespace planloop::analysis {

enum class EventKind : std::uint8_t {
    lock_requested,     // a lock call begins
    lock_acquired,      // it came back with the lock
    lock_failed,        // it came back without: `error`; ECANCELED: the thread left the call without coming back
    lock_released,      // an unlock call is about to be made; `error` is set when it failed, then it released nothing
    descriptor_closed,  // `process` lets go of `fd`; `other`: wire::CloseCause
    descriptor_duplicated,  // `fd` of `process` is now also `other`
    process_forked,         // `other`: the child's pid (0: not known); it shares every descriptor of `process`
    process_started,        // first event of a process image: fork, exec or start of recording
    process_exec,           // the image is about to be replaced
    process_exiting,        // it is about to end by itself; `other`: exit status
    process_ended,  // a supervisor saw it gone; `process` 0 when it never attached; `other`: wait status, -1 unknown;
                    // `pid` says who; `start`: its start time, 0 unknown
    sharer_seen,  // the process with pid `other` shares the description of `fd`, under its descriptor `start`; with no
                  // `process` and no description: it shares none, but a process that is recorded came from it
    child_wait_begun,  // waits for its child `other` (as waitpid's pid argument)
    child_wait_ended,
    not_traced,  // a program started in which the shim cannot be: `pid`, `other`: wire::NotTracedCause
    child_made,  // by now `process` has made the child `other`; what that shares is told elsewhere
};

constexpr bool is_lock_call(EventKind kind) noexcept {
    return kind <= EventKind::lock_released;
}

struct Event {
    std::int64_t t_ns = 0;  // since the Unix epoch, UTC, on one monotonic scale for the whole session
    EventKind kind{};
    wire::Family family{};
    wire::Mode mode{};
    std::uint8_t flags = 0;     // wire::Flags
    std::uint32_t process = 0;  // process image; 0: unknown
    std::uint32_t speaker = 0;  // as `process`, with the trace id and operation that the thread is at; 0: the process's
    std::uint32_t thread = 0;   // stream
    std::int32_t pid = 0;
    std::int32_t tid = 0;
    std::int32_t fd = -1;
    std::int32_t error = 0;
    std::uint64_t entry = 0;  // the lock call: the same in request, acquisition and failure; unique in the session
    std::uint32_t file = 0;   // for file locks; 0: unknown
    std::uint32_t description = 0;  // open file description; 0: unknown
    std::uint64_t start = 0;        // byte range, absolute
    std::uint64_t len = 0;          // 0: to the end of the file
    std::uint64_t caller = 0;       // return address, in the address space of `process`
    std::uint32_t site = 0;         // call site, the same number for the same place in the same module; 0: unknown
    std::int64_t duration_ns = 0;   // lock_acquired, lock_failed: since the request, from raw ticks
    std::int64_t other = 0;         // see EventKind
};

struct ProcessInfo {  // a process image: what one exec or fork made
    std::int32_t pid = 0;
    std::int32_t parent_pid = 0;
    std::uint64_t start_time = 0;  // clock ticks since boot; 0: unknown
    std::uint32_t parent_process = 0;
    std::uint32_t uid = 0;
    bool replaced_by_exec = false;
    bool hearsay = false;  // no image of its own, but a name that planloop.jsonl gives to what a process did
    std::string command_line, executable, working_folder, trace_id, operation;
    std::string name;  // short: last part of argv[0]
};

struct FileInfo {
    std::uint64_t device = 0, inode = 0, generation = 0;
    std::uint32_t mode = 0;
    std::string path;     // empty: unknown
    std::string lock_id;  // JSON `lock.id` for locks that are no file (mutexes); empty for files
};

// What was lost or could not be read on the way.
struct SourceNotes {
    std::uint64_t dropped = 0;          // events that writers counted but could not record
    std::uint64_t late = 0;             // following only: events that were seen after later ones had been told
    std::uint64_t torn = 0;             // slots that were claimed but never committed
    bool overwritten = false;           // a flight recorder's past: newer events took its place, as was asked for
    std::size_t unread = 0;             // so many of the messages, the first ones, tell of files that were not read
    bool own_unread = false;            // nor was the spool that the reader asked for in any case
    std::vector<std::string> messages;  // one line each: a spool that is empty, foreign, truncated, newer …

    // Holds and waits may be missing: what follows from their absence is only possible.
    bool incomplete() const { return dropped > 0 || torn > 0 || overwritten; }
};

class EventSource {
  public:
    virtual ~EventSource() = default;
    // The next event in time order; false at the end of what has been written so far.
    virtual bool next(Event &event) = 0;
    virtual const ProcessInfo &process(std::uint32_t id) const = 0;  // id 0 or unknown: an empty one
    virtual const FileInfo &file(std::uint32_t id) const = 0;
    // By Event::site; looked up in the program's files at the first question, which may take long. The reference stays
    // valid as long as the source.
    virtual const CallSite &call_site(std::uint32_t /*site*/) const {
        static const CallSite nowhere;
        return nowhere;
    }
    // The present on the scale of the events' times, which a step of the wall clock does not move; 0: not known.
    virtual std::int64_t now_ns() const { return 0; }
    // How much of what is to be read has been, from 0 to 1; below 0: not known.
    virtual double share_read() const { return -1; }
    virtual SourceNotes notes() const = 0;  // complete once next() has returned false
};

}  // namespace planloop::analysis

#endif
