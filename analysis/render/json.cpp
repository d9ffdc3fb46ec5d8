#include "analysis/render/json.h"

#include <fmt/format.h>

#include <concepts>
#include <iterator>
#include <string_view>

#include "analysis/render/names.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"

namespace planloop::analysis {
namespace {

// Writes members of one object after another; knows where a comma is due.
class JsonObject {
  public:
    explicit JsonObject(std::string &out) : out_(out) { out_.push_back('{'); }

    JsonObject &text(std::string_view key, std::string_view value) {
        name(key);
        append_json_string(out_, value);
        return *this;
    }
    JsonObject &number(std::string_view key, std::integral auto value) {
        name(key);
        fmt::format_to(std::back_inserter(out_), "{}", value);
        return *this;
    }
    JsonObject &null(std::string_view key) {
        name(key);
        out_ += "null";
        return *this;
    }
    JsonObject &text_or_null(std::string_view key, std::string_view value) {
        return value.empty() ? null(key) : text(key, value);
    }
    // `append(out, element)` writes each one.
    template <class List, class Append>
    JsonObject &list(std::string_view key, const List &elements, const Append &append) {
        name(key);
        out_.push_back('[');
        bool first = true;
        for (const auto &element : elements) {
            if (!first) out_.push_back(',');
            first = false;
            append(out_, element);
        }
        out_.push_back(']');
        return *this;
    }
    // `fill` writes the value.
    template <class Fill>
    JsonObject &member(std::string_view key, const Fill &fill) {
        name(key);
        fill(out_);
        return *this;
    }
    void close() { out_.push_back('}'); }

  private:
    void name(std::string_view key) {
        if (!first_) out_.push_back(',');
        first_ = false;
        out_.push_back('"');
        out_.append(key);
        out_ += "\":";
    }

    std::string &out_;
    bool first_ = true;
};

void append_blocker(std::string &out, const Blocker &blocker) {
    JsonObject(out)
        .number("pid", blocker.pid)
        .number("tid", blocker.tid)
        .number("ns", blocker.ns)
        .text("process", blocker.process)
        .close();
}

void append_holder(std::string &out, const Holder &holder) {
    JsonObject(out).number("pid", holder.pid).text("process", holder.process).close();
}

void append_distribution(std::string &out, const Distribution &times) {
    JsonObject(out)
        .number("total", times.total)
        .number("max", times.max)
        .number("p50", times.p50)
        .number("p99", times.p99)
        .close();
}

void append_lock(std::string &out, const LockRow &row) {
    JsonObject(out)
        .text("id", row.id)
        .text("family", family_name(row.family))
        .text("path", row.path)
        .number("acquisitions", row.acquisitions)
        .number("contended", row.contended)
        .number("failed", row.failed)
        .member("wait_ns", [&](std::string &to) { append_distribution(to, row.wait); })
        .member("hold_ns", [&](std::string &to) { append_distribution(to, row.hold); })
        .close();
}

// What a hold and a request have in common.
template <class Entry>
void add_lock_and_owner(JsonObject &object, const Entry &entry) {
    object.text("lock", entry.lock)
        .text("path", entry.path)
        .text("mode", mode_name(entry.mode))
        .number("pid", entry.pid)
        .number("tid", entry.tid)
        .text("process", entry.process)
        .text("trace_id", entry.trace_id)
        .text("lock_entry_id", entry.lock_entry_id)
        .number("since_ns", entry.since_ns)
        .number("start", entry.start)
        .number("len", entry.len);
}

void append_held(std::string &out, const HeldLock &held) {
    JsonObject object(out);
    add_lock_and_owner(object, held);
    object.member("acquired_by", [&](std::string &to) { append_holder(to, held.acquired_by); })
        .list("holders", held.holders, append_holder)
        .close();
}

void append_waiting(std::string &out, const WaitingRequest &request) {
    JsonObject object(out);
    add_lock_and_owner(object, request);
    object.list("blocked_by", request.blocked_by, append_blocker).close();
}

void append_call_site(std::string &out, const CallSite &site) {
    JsonObject object(out);
    object.text_or_null("function", site.function).text_or_null("file", site.file);
    site.line != 0 ? object.number("line", site.line) : object.null("line");
    object.text_or_null("module", site.module).number("offset", site.offset);
    if (!site.remark.empty()) object.text("remark", site.remark);
    object.close();
}

void append_participant(std::string &out, const Participant &participant) {
    JsonObject object(out);
    object.number("pid", participant.pid)
        .number("tid", participant.tid)
        .text("process", participant.process)
        .text("command_line", participant.command_line)
        .text("trace_id", participant.trace_id)
        .list("holds", participant.holds, append_json_string)
        .text("waits_for", participant.waits_for)
        .list("waits_on", participant.waits_on,
              [](std::string &to, std::int32_t pid) { fmt::format_to(std::back_inserter(to), "{}", pid); });
    if (participant.asked_ns >= 0) object.number("asked_ns", participant.asked_ns).number("times", participant.times);
    if (participant.asked_at.known())
        object.member("call_site", [&](std::string &to) { append_call_site(to, participant.asked_at); });
    if (!participant.holds_from.empty()) object.list("holds_from", participant.holds_from, append_call_site);
    object.close();
}

void append_finding(std::string &out, const Finding &finding) {
    JsonObject object(out);
    object.text("kind", finding.kind)
        .text("severity", severity_name(finding.severity))
        .text("certainty", certainty_name(finding.certainty))
        .text("summary", finding.summary)
        .number("from_ns", finding.from_ns);
    if (finding.to_ns < 0) {
        object.null("to_ns");
    } else {
        object.number("to_ns", finding.to_ns);
    }
    object.text_or_null("resolved_by", finding.resolved_by)
        .list("locks", finding.locks, append_json_string)
        .list("participants", finding.participants, append_participant)
        .list("also_held_by", finding.also_held_by, append_holder)
        .close();
}

}  // namespace

void append_json(std::string &out, const TimelineEntry &entry) {
    JsonObject object(out);
    object.number("t_ns", entry.t_ns)
        .text("timestamp", format_utc(entry.utc_ns))
        .text("event", event_name(entry.kind))
        .text("trace_id", entry.trace_id)
        .text("operation", entry.operation)
        .text("lock_entry_id", entry.lock_entry_id)
        .number("pid", entry.pid)
        .number("tid", entry.tid)
        .text("process", entry.process)
        .text("lock", entry.lock)
        .text("mode", mode_name(entry.mode))
        .number("start", entry.start)
        .number("len", entry.len);
    if (entry.kind == EventKind::lock_released) {
        object.number("hold_ns", entry.hold_ns)
            .text("reason", entry.reason)
            .text("certainty", certainty_name(entry.certainty));
    } else {
        if (entry.kind != EventKind::lock_requested) object.number("wait_ns", entry.wait_ns);
        if (entry.kind == EventKind::lock_failed) object.number("errno", entry.error);
        if (entry.tries > 1) object.number("tries", entry.tries);
        object.list("blocked_by", entry.blocked_by, append_blocker);
    }
    if (entry.call_site != nullptr && entry.call_site->known())
        object.member("call_site", [&](std::string &to) { append_call_site(to, *entry.call_site); });
    object.close();
}

std::string json_before_timeline(const Report &report) {
    std::string out;
    JsonObject object(out);
    object.text("schema", "planloop.locks/1")
        .text("session", report.session)
        .member("recorded",
                [&](std::string &to) {
                    JsonObject(to)
                        .text("from", format_utc(report.from_utc_ns))
                        .text("to", format_utc(report.to_utc_ns))
                        .number("processes", report.processes)
                        .number("threads", report.threads)
                        .number("events", report.events)
                        .number("dropped", report.dropped)
                        .close();
                })
        .list("locks", report.locks, append_lock)
        .member("timeline", [](std::string &to) { to.push_back('['); });
    return out;
}

std::string json_after_timeline(const Report &report) {
    std::string out;
    JsonObject object(out);
    object.list("held", report.held, append_held)
        .list("waiting", report.waiting, append_waiting)
        .list("findings", report.findings, append_finding)
        .list("notes", report.notes, append_json_string)
        .close();
    out.front() = ',';  // goes on inside the object that json_before_timeline() opened
    return ']' + out + '\n';
}

}  // namespace planloop::analysis
