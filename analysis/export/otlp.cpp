// OpenTelemetry's OTLP/JSON, one ExportTraceServiceRequest a line: the form that the collector's file exporter writes
// and its otlpjsonfile receiver reads (opentelemetry.io/docs/specs/otel/protocol/file-exporter). Field names: the JSON
// mapping of opentelemetry/proto/trace/v1/trace.proto; ids in hex, 64-bit integers as strings, as OTLP demands.
// Attribute names are those of the semantic conventions where there is one (process.*, thread.*, code.*, file.*,
// service.name), else `planloop.*`.
//
// An operation (a trace id, an operation name, a process) is a span; each wait and each hold is a child of it. A wait
// links to the holds that stood in its way. Trace ids are our own in W3C form (operation_trace.h), span ids are
// hashes of what they stand for: the same recording gives the same ids. Findings are events of their participants'
// operations. What instrumented operations recorded themselves stands above it all: their spans, their errors as
// events `exception`.
//
// Memory: by operations.
#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <iterator>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "analysis/call_site.h"
#include "analysis/export/format.h"
#include "analysis/render/names.h"
#include "lockcore/jsonl.h"
#include "lockcore/operation_trace.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kSpansOfALine = 256;

std::uint64_t hash_of(std::string_view text) noexcept {  // FNV-1a, mixed
    std::uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    hash = (hash ^ hash >> 32) * 0x9e3779b97f4a7c15u;
    return hash ^ hash >> 29;
}

std::string span_id(std::string_view what) {
    const std::uint64_t hash = hash_of(what);
    return fmt::format("{:016x}", hash == 0 ? 1 : hash);  // all zeros is no id
}
std::string hold_span_id(std::uint64_t entry) {
    return span_id("hold " + entry_words(entry));
}

// `{"key":…,"value":{…}}` after one another.
class Attributes {
  public:
    explicit Attributes(std::string &out) : out_(out) { out_ += "\"attributes\":["; }
    Attributes &text(std::string_view key, std::string_view value) {
        if (value.empty()) return *this;
        begin(key);
        out_ += "\"stringValue\":";
        append_json_string(out_, value);
        out_ += "}}";
        return *this;
    }
    template <class T>
    Attributes &number(std::string_view key, T value) {
        begin(key);
        fmt::format_to(std::back_inserter(out_), "\"intValue\":\"{}\"}}}}", value);
        return *this;
    }
    Attributes &flag(std::string_view key, bool value) {
        begin(key);
        fmt::format_to(std::back_inserter(out_), "\"boolValue\":{}}}}}", value);
        return *this;
    }
    void close() { out_ += ']'; }

  private:
    void begin(std::string_view key) {
        if (!first_) out_ += ',';
        first_ = false;
        out_ += "{\"key\":";
        append_json_string(out_, key);
        out_ += ",\"value\":{";
    }
    std::string &out_;
    bool first_ = true;
};

struct Process {
    std::int32_t pid;
    std::string name, command_line;
    bool operator<(const Process &other) const {
        return std::tie(pid, name, command_line) < std::tie(other.pid, other.name, other.command_line);
    }
};

struct Operation {
    std::string trace_id, name;
    std::int64_t from_ns = 0, to_ns = 0;
    std::string events;  // JSON, findings
};

class Otlp : public Exporter {
  public:
    explicit Otlp(const Write &write) : write_(write) {}

    void entry(const TimelineEntry &entry) override { operation_of(entry, entry.utc_ns - entry.wait_ns, entry.utc_ns); }

    void acquisition(const Acquisition &taken) override {
        const TimelineEntry &call = taken.call;
        std::string span = begin_wait(call);
        span += ",\"status\":{}}";
        add(call, span);

        span = begin_span(call, hold_span_id(call.entry), "hold", call.utc_ns, taken.ended_utc_ns());
        Attributes attributes(span);
        describe(attributes, call);
        attributes.number("planloop.hold_ns", taken.hold_ns);
        if (taken.end == Acquisition::End::released) {
            attributes.text("planloop.ended", taken.reason)
                .flag("planloop.ended_exactly", taken.certainty == EndCertainty::exact);
        } else {
            attributes.text("planloop.ended", taken.end == Acquisition::End::open ? "open" : "unknown");
        }
        attributes.close();
        span += ",\"status\":{}}";
        add(call, span);
        operation_of(call, call.utc_ns, taken.ended_utc_ns());
    }

    void vain_wait(const TimelineEntry &wait) override {
        std::string span = begin_wait(wait);
        if (wait.error == 0) {
            span += ",\"status\":{}}";
        } else {
            span += ",\"status\":{\"code\":2,\"message\":";  // STATUS_CODE_ERROR
            append_json_string(span, vain_outcome(wait));
            span += "}}";
        }
        add(wait, span);
        operation_of(wait, wait.utc_ns - wait.wait_ns, wait.utc_ns);
    }

    void records(const SessionRecords &records) override {
        for (const RecordedTrace &trace : records.traces) {
            if (!trace.spans.empty()) roots_.emplace(trace.trace_id, recorded_span_id(trace, 0));
            for (std::size_t at = 0; at < trace.spans.size(); ++at) {
                const std::int32_t pid = trace.spans[at].pid == 0 ? trace.pid : trace.spans[at].pid;
                add(Process{pid, trace.process, fmt::format("{}", fmt::join(trace.command, " "))},
                    recorded_span(trace, at) + (at == 0 ? error_events(trace, records.errors) : std::string()) +
                        recorded_status(trace.spans[at]));
            }
        }
    }

    void finish(const Report &report) override {
        for (const Finding &finding : report.findings) tell(finding, report);
        for (const auto &[process, operations] : processes_)
            for (const Operation &operation : operations) add(process, operation_span(process, operation));
        flush();
    }

  private:
    static std::string operation_span_id(std::string_view trace_id, std::string_view name, std::int32_t pid) {
        return span_id(fmt::format("operation {} {} {}", trace_id, pid, name));
    }

    std::string operation_span(const Process &process, const Operation &operation) const {
        std::string span = fmt::format(R"({{"traceId":"{}","spanId":"{}",)", to_w3c_trace_id(operation.trace_id),
                                       operation_span_id(operation.trace_id, operation.name, process.pid));
        if (const auto root = roots_.find(operation.trace_id); root != roots_.end())
            span += fmt::format(R"("parentSpanId":"{}",)", root->second);
        span += "\"name\":";
        append_json_string(span, operation.name.empty() ? process.name : operation.name);
        span += fmt::format(R"(,"kind":1,"startTimeUnixNano":"{}","endTimeUnixNano":"{}",)", operation.from_ns,
                            operation.to_ns);
        Attributes(span).text("planloop.trace_id", operation.trace_id).close();
        if (!operation.events.empty()) span += ",\"events\":[" + operation.events + ']';
        return span + ",\"status\":{}}";
    }

    static std::string recorded_span_id(const RecordedTrace &trace, std::size_t at) {
        return span_id(fmt::format("span {} {}", trace.trace_id, at));
    }
    // By number, else by name: the last one of that name before it.
    static std::optional<std::size_t> parent_of(const RecordedTrace &trace, std::size_t at) {
        const RecordedSpan &span = trace.spans[at];
        std::optional<std::size_t> parent;
        for (std::size_t i = 0; i < trace.spans.size(); ++i) {
            if (i == at) continue;
            const RecordedSpan &other = trace.spans[i];
            if (span.parent_id != 0 && other.id == span.parent_id) return i;
            if (span.parent_id == 0 && i < at && !span.parent.empty() && other.name == span.parent) parent = i;
        }
        return parent;
    }
    // Up to its events.
    static std::string recorded_span(const RecordedTrace &trace, std::size_t at) {
        const RecordedSpan &span = trace.spans[at];
        std::string out = fmt::format(R"({{"traceId":"{}","spanId":"{}",)", to_w3c_trace_id(trace.trace_id),
                                      recorded_span_id(trace, at));
        if (const auto parent = parent_of(trace, at))
            out += fmt::format(R"("parentSpanId":"{}",)", recorded_span_id(trace, *parent));
        out += "\"name\":";
        append_json_string(out, span.name);
        out += fmt::format(R"(,"kind":1,"startTimeUnixNano":"{}","endTimeUnixNano":"{}",)", span.begin_utc_ns,
                           span.begin_utc_ns + span.duration_ns);
        Attributes attributes(out);
        attributes.text("planloop.trace_id", trace.trace_id).text("planloop.status", span.status);
        if (span.tid != 0) attributes.number("thread.id", span.tid);
        for (const auto &[key, value] : span.metadata) attributes.text("planloop.metadata." + key, value);
        attributes.close();
        return out;
    }
    static std::string error_events(const RecordedTrace &trace, const std::vector<RecordedError> &errors) {
        std::string events;
        for (const RecordedError &error : errors) {
            if (error.trace_id != trace.trace_id) continue;
            events +=
                fmt::format(R"({}{{"timeUnixNano":"{}","name":"exception",)", events.empty() ? "" : ",", error.utc_ns);
            Attributes(events)
                .text("exception.type", error.type)
                .text("exception.message", error.message)
                .text("code.function.name", error.function)
                .close();
            events += '}';
        }
        return events.empty() ? events : ",\"events\":[" + events + ']';
    }
    static std::string recorded_status(const RecordedSpan &span) {
        if (span.status != "error") return ",\"status\":{}}";
        std::string out = ",\"status\":{\"code\":2,\"message\":";  // STATUS_CODE_ERROR
        append_json_string(out, span.error);
        return out + "}}";
    }

    Operation &operation_of(const TimelineEntry &entry, std::int64_t from_ns, std::int64_t to_ns) {
        if (known_ == nullptr || known_pid_ != entry.pid || known_->trace_id != entry.trace_id ||
            known_->name != entry.operation) {
            known_ = &find_operation(entry, from_ns, to_ns);
            known_pid_ = entry.pid;
        }
        known_->from_ns = std::min(known_->from_ns, from_ns);
        known_->to_ns = std::max(known_->to_ns, to_ns);
        return *known_;
    }
    Operation &find_operation(const TimelineEntry &entry, std::int64_t from_ns, std::int64_t to_ns) {
        const auto [at, made] = by_name_.try_emplace({entry.trace_id, entry.pid, entry.operation}, nullptr);
        if (made) {
            std::deque<Operation> &operations = processes_[{entry.pid, entry.process, entry.command_line}];
            operations.push_back({entry.trace_id, entry.operation, from_ns, to_ns, {}});
            at->second = &operations.back();
        }
        return *at->second;
    }

    // Up to its attributes.
    static std::string begin_span(const TimelineEntry &call, const std::string &id, std::string_view what,
                                  std::int64_t from_ns, std::int64_t to_ns) {
        std::string span =
            fmt::format(R"({{"traceId":"{}","spanId":"{}","parentSpanId":"{}","name":)", to_w3c_trace_id(call.trace_id),
                        id, operation_span_id(call.trace_id, call.operation, call.pid));
        append_json_string(span, fmt::format("{} {}", what, call.path.empty() ? call.lock : call.path));
        fmt::format_to(std::back_inserter(span), R"(,"kind":1,"startTimeUnixNano":"{}","endTimeUnixNano":"{}",)",
                       from_ns, to_ns);
        return span;
    }

    // Up to its status.
    static std::string begin_wait(const TimelineEntry &call) {
        std::string span = begin_span(call, span_id("wait " + entry_words(call.entry)), "wait for",
                                      call.utc_ns - call.wait_ns, call.utc_ns);
        Attributes attributes(span);
        describe(attributes, call);
        attributes.number("planloop.wait_ns", call.wait_ns)
            .number("planloop.tries", call.tries)
            .text("planloop.blocked_by", blocker_words(call.blocked_by));
        attributes.close();
        std::string links;
        for (const Blocker &blocker : call.blocked_by) {
            if (blocker.entry == 0) continue;
            if (!links.empty()) links += ',';
            fmt::format_to(std::back_inserter(links), R"({{"traceId":"{}","spanId":"{}",)",
                           to_w3c_trace_id(blocker.trace_id), hold_span_id(blocker.entry));
            Attributes(links)
                .number("process.pid", blocker.pid)
                .number("thread.id", blocker.tid)
                .number("planloop.blocked_ns", blocker.ns)
                .close();
            links += '}';
        }
        if (!links.empty()) span += ",\"links\":[" + links + ']';
        return span;
    }

    static void describe(Attributes &attributes, const TimelineEntry &call) {
        attributes.number("thread.id", call.tid)
            .text("file.path", call.path)
            .text("planloop.lock.id", call.lock)
            .text("planloop.lock.family", family_name(call.family))
            .text("planloop.lock.mode", mode_name(call.mode))
            .text("planloop.lock.entry_id", call.lock_entry_id);
        if (call.start != 0 || call.len != 0)
            attributes.number("planloop.lock.start", call.start).number("planloop.lock.len", call.len);
        const CallSite *const site = call.call_site;
        if (site == nullptr) return;
        attributes.text("code.function.name", site->function).text("code.file.path", site->file);
        if (site->line != 0) attributes.number("code.line.number", site->line);
        attributes.text("planloop.code.module", site->module);
    }

    void tell(const Finding &finding, const Report &report) {
        std::string event =
            fmt::format(R"({{"timeUnixNano":"{}","name":"planloop.finding",)", report.from_utc_ns + finding.from_ns);
        Attributes(event)
            .text("planloop.finding.kind", finding.kind)
            .text("planloop.finding.severity", severity_name(finding.severity))
            .text("planloop.finding.certainty", certainty_name(finding.certainty))
            .text("planloop.finding.summary", finding.summary)
            .close();
        event += '}';
        std::vector<Operation *> told;
        for (const Participant &participant : finding.participants) {
            for (auto &[process, operations] : processes_) {
                if (process.pid != participant.pid) continue;
                for (Operation &operation : operations) {
                    if (operation.trace_id != participant.trace_id ||
                        std::find(told.begin(), told.end(), &operation) != told.end())
                        continue;
                    told.push_back(&operation);
                    operation.events += (operation.events.empty() ? "" : ",") + event;
                    break;
                }
            }
        }
    }

    void add(const TimelineEntry &call, const std::string &span) {
        add(Process{call.pid, call.process, call.command_line}, span);
    }
    void add(const Process &process, const std::string &span) {
        std::string &spans = batch_[process];
        if (!spans.empty()) spans += ',';
        spans += span;
        if (++batched_ >= kSpansOfALine) flush();
    }

    void flush() {
        if (batch_.empty()) return;
        std::string line = "{\"resourceSpans\":[";
        for (const auto &[process, spans] : batch_) {
            if (line.back() == '}') line += ',';
            line += "{\"resource\":{";
            Attributes(line)
                .text("service.name", process.name.empty() ? "unknown_service" : process.name)
                .number("process.pid", process.pid)
                .text("process.executable.name", process.name)
                .text("process.command_line", process.command_line)
                .close();
            line += "},\"scopeSpans\":[{\"scope\":{\"name\":\"planloop\"},\"spans\":[" + spans + "]}]}";
        }
        line += "]}\n";
        write_(line);
        batch_.clear();
        batched_ = 0;
    }

    const Write &write_;
    std::map<Process, std::deque<Operation>> processes_;
    std::map<std::tuple<std::string, std::int32_t, std::string>, Operation *> by_name_;
    Operation *known_ = nullptr;  // the last one that was asked for
    std::int32_t known_pid_ = 0;
    std::map<std::string, std::string> roots_;  // span of the recorded operation, by trace id
    std::map<Process, std::string> batch_;
    std::size_t batched_ = 0;
};

}  // namespace

std::unique_ptr<Exporter> make_otlp(const Write &write) {
    return std::make_unique<Otlp>(write);
}

}  // namespace planloop::analysis
