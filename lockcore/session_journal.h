// What planloop itself writes to a session's planloop.jsonl: the events of its own lock, and lines for people. Each is
// written as it happens; when the log cannot be written, planloop works on without it. PLANLOOP_NO_RECORDING=1:
// nothing.
//
// Threads: safe. Signals: not async-signal-safe. Errors: none; a log is no reason to fail.
#ifndef PLANLOOP_LOCKCORE_SESSION_JOURNAL_H
#define PLANLOOP_LOCKCORE_SESSION_JOURNAL_H

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "lockcore/jsonl.h"
#include "lockcore/session.h"

namespace planloop {

class SessionJournal {
  public:
    explicit SessionJournal(const Session &session);

    struct LockEvent {
        std::string_view event;  // lock_requested, lock_acquired, lock_released, lock_failed
        std::string_view operation, lock_entry_id;
        std::int64_t wait_ns = -1, hold_ns = -1;
        std::int32_t error = 0;
    };
    // Of the session's own lock, id `session`.
    void write(const LockEvent &event);
    // `level`: INFO, WARNING, ERROR. `context`: a JSON object, may be empty.
    void write(std::string_view level, std::string_view operation, std::string_view message,
               std::string_view context = {});

  private:
    void tell_thread_locks(const LockEvent &event) const noexcept;
    void append(const std::string &line);

    Session session_;
    std::string lock_path_;
    std::mutex mutex_;
    std::optional<LineAppender> log_;
};

}  // namespace planloop

#endif
