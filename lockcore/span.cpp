#include "lockcore/span.h"

#include <errno.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <cmath>
#include <exception>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/jsonl.h"
#include "lockcore/performance_log.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"
#include "lockcore/span_journal.h"
#include "lockcore/span_of_thread.h"
#include "lockcore/trace_file.h"

namespace planloop {

namespace recording {

constinit thread_local SpanOfThread span_of_thread;
constinit std::atomic<bool (*)(std::string &)> tells_exception{nullptr};

namespace {

constexpr std::int64_t kShortestWaitNs = 10'000;

std::string members_of(std::initializer_list<SpanField> fields) {
    std::string members;
    for (const SpanField &field : fields) {
        if (!members.empty()) members += ',';
        field.value.append_json(members, field.key);
    }
    return members;
}

// What is said of a span that an exception left.
void note_exception(SpanJournal &journal, std::uint32_t span) {
    auto *const tells = tells_exception.load(std::memory_order_relaxed);
    std::string text;
    if (tells != nullptr && tells(text)) journal.text(span, SpanText::error, shortened(redacted(text)));
}

}  // namespace

void count_lock_wait(const LockNote &lock, std::int64_t wait_ns) noexcept {
    const SpanOfThread &here = span_of_thread;
    if (here.journal == nullptr) return;
    here.journal->count_lock(wait_ns, -1);
    if (wait_ns < kShortestWaitNs && !lock.of_session) return;
    const std::uint32_t span = here.journal->add("lock_wait", here.span, wait_ns);
    try {
        here.journal->text(
            span, SpanText::metadata,
            members_of(
                {{"lock", lock.of_session ? "session" : wire::kFamilies[static_cast<std::size_t>(lock.family)].name},
                 {"path", std::string_view(lock.path == nullptr ? "" : lock.path)}}));
    } catch (const std::exception &) {  // no memory: a wait without its name
        return;
    }
}

void count_lock_hold(std::int64_t hold_ns) noexcept {
    if (span_of_thread.journal != nullptr) span_of_thread.journal->count_lock(-1, hold_ns);
}

}  // namespace recording

using recording::span_of_thread;

void SpanValue::append_json(std::string &out, std::string_view key) const {
    append_json_string(out, shortened(key));
    out += ':';
    switch (kind_) {
        case Kind::integer:
            out += std::to_string(integer_);
            break;
        case Kind::unsigned_integer:
            out += std::to_string(static_cast<std::uint64_t>(integer_));
            break;
        case Kind::number:
            out += std::isfinite(number_) ? fmt::format("{}", number_) : "null";
            break;
        case Kind::flag:
            out += integer_ != 0 ? "true" : "false";
            break;
        case Kind::text:
            append_json_string(out, shortened(redacted(key, text_)));
            break;
    }
}

Span::Span(std::string_view name) noexcept : journal_(span_of_thread.journal) {
    if (journal_ == nullptr) return;
    parent_ = span_of_thread.span;
    index_ = journal_->begin(name, parent_);
    if (index_ != SpanJournal::kNone) span_of_thread.span = index_;
    exceptions_ = std::uncaught_exceptions();
}

Span::Span(std::string_view name, std::initializer_list<SpanField> metadata) : Span(name) {
    if (index_ != SpanJournal::kNone) journal_->text(index_, SpanText::metadata, recording::members_of(metadata));
}

void Span::note(std::string_view key, SpanValue value) {
    if (index_ != SpanJournal::kNone) journal_->text(index_, SpanText::metadata, recording::members_of({{key, value}}));
}

void Span::fail(std::string_view why) {
    if (index_ == SpanJournal::kNone) return;
    journal_->fail(index_);
    journal_->text(index_, SpanText::error, shortened(redacted(why)));
}

void Span::end() noexcept {
    if (journal_ == nullptr) return;
    const bool failed = std::uncaught_exceptions() > exceptions_;
    if (failed && index_ != SpanJournal::kNone) {
        try {
            recording::note_exception(*journal_, index_);
        } catch (const std::exception &) {  // no memory: the status tells
            journal_->fail(index_);
        }
    }
    journal_->end(index_, failed ? SpanStatus::error : SpanStatus::ok);
    if (span_of_thread.journal == journal_ && span_of_thread.span == index_) span_of_thread.span = parent_;
    journal_ = nullptr;
    index_ = SpanJournal::kNone;
}

SpanContext current_span() {
    SpanContext context;
    if (span_of_thread.journal != nullptr) context.journal = span_of_thread.journal->shared_from_this();
    context.span = span_of_thread.span;
    context.trace = current_trace();
    return context;
}

SpanScope::SpanScope(const SpanContext &context)
    : trace_(context.trace),
      journal_(context.journal),
      journal_before_(span_of_thread.journal),
      span_before_(span_of_thread.span) {
    span_of_thread = {journal_.get(), context.span};
}

SpanScope::~SpanScope() {
    span_of_thread = {journal_before_, span_before_};
}

struct OperationRecording::State {
    Session session;
    RecordingFeatures features;
    std::shared_ptr<SpanJournal> journal;  // nullptr: nothing is recorded
    recording::SpanOfThread before;
    OperationTrace trace;
    std::uint32_t root = SpanJournal::kNone;
    pid_t pid = 0;
    int exceptions = 0;
    bool finished = false;
};

OperationRecording::OperationRecording(const Session &session, const std::vector<std::string> &command)
    : state_(std::make_unique<State>()) {
    State &state = *state_;
    state.features = recording_features();
    if (!state.features.tracing && !state.features.profiling) {
        state.finished = true;
        return;
    }
    state.session = session;
    state.pid = ::getpid();
    state.exceptions = std::uncaught_exceptions();
    state.trace = {current_trace_id(), current_trace().operation};
    if (state.trace.operation.empty()) state.trace.operation = program_invocation_short_name;

    OperationRecord facts;
    facts.trace_id = state.trace.trace_id;
    facts.operation = state.trace.operation;
    facts.session_id = session.id;
    facts.process = program_invocation_short_name;
    for (const std::string &word : command) facts.command.push_back(shortened(redacted(word)));
    const bool has_folder = state.features.tracing && make_record_folder(open_traces_dir(session));
    state.journal = SpanJournal::create(has_folder ? open_traces_dir(session) : std::string(), facts);
    if (state.journal == nullptr) {
        state.finished = true;
        return;
    }
    state.root = state.journal->begin(state.trace.operation, SpanJournal::kNone);
    state.before = std::exchange(span_of_thread, {state.journal.get(), state.root});
    recording::lock_watchers.fetch_add(1, std::memory_order_relaxed);
}

OperationRecording::~OperationRecording() {
    if (state_->finished) return;
    if (std::uncaught_exceptions() > state_->exceptions) {
        state_->journal->fail(state_->root);
        recording::note_exception(*state_->journal, state_->root);
    }
    if (const auto done = finish(); !done) static_cast<void>(done.error());  // a record is no reason to fail
}

const std::string &OperationRecording::trace_id() const noexcept {
    return state_->trace.trace_id;
}

void OperationRecording::fail(std::string_view why) {
    if (state_->finished) return;
    state_->journal->fail(state_->root);
    state_->journal->text(state_->root, SpanText::error, shortened(redacted(why)));
}

Result<void> OperationRecording::finish() {
    State &state = *state_;
    if (std::exchange(state.finished, true)) return {};
    span_of_thread = state.before;
    recording::lock_watchers.fetch_sub(1, std::memory_order_relaxed);
    if (state.pid != ::getpid()) return {};  // a forked child: the parent tells the whole
    state.journal->end(state.root, SpanStatus::ok);
    OperationRecord record = state.journal->read();
    record.finished = true;
    Result<void> result;
    if (state.features.tracing) {
        if (const auto written = write_trace(state.session, record); !written) result = written.error();
    }
    state.journal->remove();
    if (!state.features.profiling) return result;

    const SpanRecord &root = record.spans.front();
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    const auto ms = [](auto ns) { return static_cast<double>(ns) / 1e6; };
    const std::array metrics{
        Metric{"command.duration", ms(root.end_utc_ns - root.begin_utc_ns), "ms"},
        Metric{"memory.rss_mb", static_cast<double>(usage.ru_maxrss) * 1024 / 1e6, "mb"},
        Metric{"lock.wait_ms", ms(record.lock_wait_ns), "ms"},
        Metric{"lock.hold_ms", ms(record.lock_hold_ns), "ms"},
    };
    const TraceScope as_recorded(state.trace);  // by now the thread may be at something else
    const auto logged = record_metrics(state.session, std::span(metrics).first(record.locks == 0 ? 2 : 4),
                                       {{"status", root.status == SpanStatus::error ? "error" : "ok"}});
    return result ? logged : result;
}

}  // namespace planloop
