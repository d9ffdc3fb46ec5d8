// What an operation spends its time on: spans inside spans, and `traces/{trace_id}.json` at its end.
//
//   start_operation_trace("update");
//   OperationRecording recording(session, {"planloop", "update"});
//   { Span span("load_state", {{"size", n}}); … }                  // ends with its scope
//   std::thread([here = current_span()] { SpanScope scope(here); Span span("part"); … });   // across threads
//
// The file, whole or not there:
//
//   {"trace_id":"tr_…","command":["planloop","update"],"started_at":"…Z","completed_at":"…Z","duration_ms":12.5,
//    "status":"ok","spans":[{"name":"update","start_time":"…Z","end_time":"…Z","duration_ms":12.5,"metadata":{},
//      "id":1,"status":"ok","pid":1,"tid":1},
//     {"name":"load_state","start_time":"…Z","end_time":"…Z","duration_ms":1.2,"parent":"update",
//      "metadata":{"size":12},"id":2,"parent_id":1,"status":"ok","pid":1,"tid":1}],
//    "operation":"update","session_id":"x","pid":1,"process":"planloop","lock_wait_ms":0.1,"lock_hold_ms":9.5,
//    "spans_dropped":0}
//
// `status`: ok, error (an exception left the scope, or fail() was called; then there is an `error` text too) or
// unfinished (the process died inside; `completed_at` is null, open spans have `end_time` null and last until the last
// sign of life). The first span is the operation itself, so there is always one; times are UTC, RFC 3339. Waits for
// locks that record themselves (FileLock, traced, SessionLock) of 10 us and more, and every wait for the session's, are
// spans named `lock_wait` with `lock` and `path` in their metadata. Traces of one trace id are joined in one file: ids
// of spans stay unique, `command` is that of the first.
//
// While it runs, spans lie in a mapped side file (span_journal.h), so that SIGKILL loses none; the next reader makes
// the trace of it, marked unfinished.
//
// What is recorded: nothing without an OperationRecording, with PLANLOOP_NO_RECORDING=1 or with the feature `tracing`
// off (dev_mode.h); a span then costs a load. Errors: none that the program would notice; finish() tells.
// Threads: spans of one thread nest; a SpanContext takes them to another, where an operation may end before its spans
// do: those stay open in the file. A forked child's spans go to its parent's trace, and only the parent writes it.
// Signals: not async-signal-safe. Lifetime: on the thread of the operation a span ends before the operation does.
// Cost: <= 150 ns a span without metadata.
#ifndef PLANLOOP_LOCKCORE_SPAN_H
#define PLANLOOP_LOCKCORE_SPAN_H

#include <concepts>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "lockcore/operation_trace.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

class SpanJournal;

// A number, true or false, or text. Text is borrowed for the call.
class SpanValue {
  public:
    enum class Kind : std::uint8_t { integer, unsigned_integer, number, flag, text };

    template <std::integral T>
    SpanValue(T value) noexcept  // NOLINT(google-explicit-constructor): reads as {"size", n}
        : kind_(std::same_as<T, bool>   ? Kind::flag
                : std::is_unsigned_v<T> ? Kind::unsigned_integer
                                        : Kind::integer),
          integer_(static_cast<std::int64_t>(value)) {}
    template <std::floating_point T>
    SpanValue(T value) noexcept  // NOLINT(google-explicit-constructor)
        : kind_(Kind::number), number_(static_cast<double>(value)) {}
    SpanValue(std::string_view value) noexcept  // NOLINT(google-explicit-constructor)
        : kind_(Kind::text), text_(value) {}
    SpanValue(const char *value) noexcept  // NOLINT(google-explicit-constructor)
        : SpanValue(std::string_view(value)) {}
    SpanValue(const std::string &value) noexcept  // NOLINT(google-explicit-constructor)
        : SpanValue(std::string_view(value)) {}

    void append_json(std::string &out, std::string_view key) const;  // redacted by key and by shape

  private:
    Kind kind_;
    std::int64_t integer_ = 0;
    double number_ = 0;
    std::string_view text_{};
};

struct SpanField {
    std::string_view key;
    SpanValue value;
};

class Span {
  public:
    explicit Span(std::string_view name) noexcept;
    Span(std::string_view name, std::initializer_list<SpanField> metadata);
    ~Span() { end(); }
    Span(const Span &) = delete;
    Span &operator=(const Span &) = delete;

    void note(std::string_view key, SpanValue value);
    void fail(std::string_view why);
    void end() noexcept;  // before the scope does; for the thread that began it, innermost first

  private:
    SpanJournal *journal_;  // nullptr: not recorded
    std::uint32_t index_ = 0, parent_ = 0;
    int exceptions_ = 0;
};

// Where a thread is, for another to go on from.
struct SpanContext {
    std::shared_ptr<SpanJournal> journal;
    std::uint32_t span = 0;
    OperationTrace trace;
};
SpanContext current_span();

class SpanScope {
  public:
    explicit SpanScope(const SpanContext &context);
    ~SpanScope();
    SpanScope(const SpanScope &) = delete;
    SpanScope &operator=(const SpanScope &) = delete;

  private:
    TraceScope trace_;
    std::shared_ptr<SpanJournal> journal_;
    SpanJournal *journal_before_;
    std::uint32_t span_before_;
};

// From construction to its end everything that the thread does is one recorded operation: that of
// start_operation_trace(), which is called before.
class OperationRecording {
  public:
    explicit OperationRecording(const Session &session, const std::vector<std::string> &command = {});
    ~OperationRecording();  // finish(); failed when an exception leaves the scope
    OperationRecording(const OperationRecording &) = delete;
    OperationRecording &operator=(const OperationRecording &) = delete;

    const std::string &trace_id() const noexcept;
    void fail(std::string_view why);
    // Writes the trace and the metrics (performance_log.h); a second call does nothing.
    Result<void> finish();

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace planloop

#endif
