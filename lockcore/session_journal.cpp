#include "lockcore/session_journal.h"

#include <errno.h>
#include <sys/stat.h>
#include <unistd.h>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/operation_trace.h"
#include "lockcore/session_queue.h"
#include "lockcore/thread_locks.h"

namespace planloop {

SessionJournal::SessionJournal(const Session &session) : session_(session), lock_path_(lock_files::lock(session)) {
    if (recording_refused()) return;
    ::mkdir(session.logs_dir().c_str(), 0700);
    if (auto log = LineAppender::open(session.log_file())) log_.emplace(std::move(*log));
}

void SessionJournal::append(const std::string &line) {
    const std::lock_guard guard(mutex_);
    if (auto done = log_->append(line); !done) static_cast<void>(done.error());
}

void SessionJournal::tell_thread_locks(const LockEvent &event) const noexcept {
    if (!recording::locks_are_watched()) return;
    const recording::LockNote note{this, wire::Family::named_mutex, wire::Mode::exclusive, lock_path_.c_str(), true};
    if (event.event == "lock_requested") recording::note_wait(note);
    if (event.event == "lock_acquired") recording::note_held(note);
    if (event.event == "lock_failed") recording::note_failed(note, event.error);
    if (event.event == "lock_released") recording::note_released(note);
}

void SessionJournal::write(const LockEvent &event) {
    tell_thread_locks(event);
    if (!log_) return;
    const std::string trace_id = current_trace_id();
    LockLine line;
    line.utc_ns = utc_now_ns();
    line.event = event.event;
    line.trace_id = trace_id;
    line.operation = event.operation;
    line.lock_entry_id = event.lock_entry_id;
    line.wait_ns = event.wait_ns;
    line.hold_ns = event.hold_ns;
    line.session_id = session_.id;
    line.pid = ::getpid();
    line.tid = ::gettid();
    line.process = program_invocation_short_name;
    line.source = "lockcore";
    line.lock_id = "session";
    line.family = "named_mutex";
    line.path = lock_path_;
    line.mode = "exclusive";
    if (event.hold_ns >= 0) line.reason = "unlock";
    line.error = event.error;
    std::string text;
    append_lock_line(text, line);
    append(text);
}

void SessionJournal::write(std::string_view level, std::string_view operation, std::string_view message,
                           std::string_view context) {
    if (!log_) return;
    std::string text = "{\"timestamp\":\"";
    append_utc(text, utc_now_ns());
    const auto field = [&](std::string_view key, std::string_view value) {
        text += ",\"";
        text += key;
        text += "\":";
        append_json_string(text, value);
    };
    text += '"';
    field("level", level);
    field("trace_id", current_trace_id());
    field("session_id", session_.id);
    field("operation", operation);
    field("message", message);
    text += ",\"context\":";
    text += context.empty() ? "{}" : context;
    text += "}\n";
    append(text);
}

}  // namespace planloop
