// Follows a session while it is recorded, in a thread of its own: runs the analysis on events as they come, appends the
// shim's lock events to planloop.jsonl, and has the report of the run when the run ends.
//
// Threads: start() and finish() from one thread. That thread must have blocked the signals that it waits for, since
// the new one inherits the mask. Errors: in Outcome.
#ifndef PLANLOOP_CLI_LIVE_EXPORT_H
#define PLANLOOP_CLI_LIVE_EXPORT_H

#include <chrono>
#include <memory>
#include <optional>
#include <string>

#include "analysis/report.h"
#include "lockcore/session.h"

namespace planloop::cli {

class LiveExport {
  public:
    struct Outcome {
        std::optional<analysis::Report> report;  // empty: the analysis is still behind, or did not get everything
        std::string error;                       // why lines are missing in planloop.jsonl; empty: none are
        std::string unread;                      // which files of the session are not in the report; empty: all are
    };

    struct Wanted {
        std::string spool_path;       // whose events are exported
        bool export_lines = false;    // false: only the report
        bool tell_deadlocks = false;  // on stderr, while they stand
        int finished_fd = -1;         // an eventfd that is raised when the report is there, borrowed
        int deadlock_fd = -1;         // likewise, when a deadlock was told
    };
    static LiveExport start(const Session &session, const Wanted &wanted);
    LiveExport(LiveExport &&) noexcept;
    LiveExport &operator=(LiveExport &&) noexcept;
    ~LiveExport();

    // One line for Outcome::unread.
    static std::string unread_in(const analysis::SourceNotes &notes);
    // The programs are done: takes in what is there and ends, after `patience` at the latest.
    void finish_soon(std::chrono::milliseconds patience);
    // After finish_soon(): waits for the end, at most as long as was given.
    Outcome outcome();

  private:
    struct Shared;
    explicit LiveExport(std::shared_ptr<Shared> shared);
    std::shared_ptr<Shared> shared_;  // the thread has its own share: one that hangs is left behind
};

}  // namespace planloop::cli

#endif
