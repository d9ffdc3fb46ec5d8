#include "analysis/render/json.h"

#include <fmt/format.h>

#include <algorithm>
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
        const fmt::format_int digits(value);
        out_.append(digits.data(), digits.size());
        return *this;
    }
    JsonObject &decimal(std::string_view key, double value) {
        name(key);
        fmt::format_to(std::back_inserter(out_), "{:.6g}", value);
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
        .number("mean", times.mean)
        .number("p90", times.p90)
        .number("count", times.count)
        .close();
}

// Steps as [greatest, mean].
void append_queue(std::string &out, const QueueDepth &queue) {
    JsonObject(out)
        .number("max", queue.max)
        .decimal("mean", queue.mean)
        .number("from_ns", queue.from_ns)
        .number("step_ns", queue.step_ns)
        .list("steps", queue.steps,
              [](std::string &to, const QueueDepth::Step &step) {
                  fmt::format_to(std::back_inserter(to), "[{},{:.6g}]", step.max, step.mean);
              })
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
        .number("waited_ns", row.waited_ns)
        .member("queue", [&](std::string &to) { append_queue(to, row.queue); })
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

void append_range(std::string &out, const ByteRange &range) {
    JsonObject(out).number("start", range.start).number("len", range.len).close();
}

void append_participant(std::string &out, const Participant &participant) {
    JsonObject object(out);
    object.number("pid", participant.pid)
        .number("tid", participant.tid)
        .text("process", participant.process)
        .text("command_line", participant.command_line)
        .text("trace_id", participant.trace_id);
    if (participant.started_by.pid != 0)
        object.member("started_by", [&](std::string &to) {
            JsonObject(to)
                .number("pid", participant.started_by.pid)
                .text("process", participant.started_by.process)
                .text("command_line", participant.started_by.command_line)
                .close();
        });
    object.list("holds", participant.holds, append_json_string)
        .text("waits_for", participant.waits_for)
        .list("waits_on", participant.waits_on,
              [](std::string &to, std::int32_t pid) { fmt::format_to(std::back_inserter(to), "{}", pid); });
    // Of whole files, as most locks are, there is nothing to say.
    if (!participant.wanted.whole())
        object.member("waits_for_range", [&](std::string &to) { append_range(to, participant.wanted); });
    if (std::any_of(participant.held.begin(), participant.held.end(),
                    [](const ByteRange &range) { return !range.whole(); }))
        object.list("holds_ranges", participant.held, append_range);
    if (!participant.parent_holds.empty()) object.list("parent_holds", participant.parent_holds, append_json_string);
    if (participant.asked_ns >= 0) object.number("asked_ns", participant.asked_ns).number("times", participant.times);
    if (participant.asked_at.known())
        object.member("call_site", [&](std::string &to) { append_call_site(to, participant.asked_at); });
    if (!participant.holds_from.empty()) object.list("holds_from", participant.holds_from, append_call_site);
    object.close();
}

void add_finding(JsonObject &object, const Finding &finding) {
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
        .list("also_held_by", finding.also_held_by, append_holder);
}

void append_finding(std::string &out, const Finding &finding) {
    JsonObject object(out);
    add_finding(object, finding);
    object.close();
}

enum class By { process, call_site, operation };

void append_culprit(std::string &out, const Culprit &culprit, By by) {
    JsonObject object(out);
    object.number("caused_ns", culprit.caused_ns).number("waits", culprit.waits);
    if (by == By::process)
        object.number("pid", culprit.pid).text("process", culprit.process).text("command_line", culprit.command_line);
    if (by == By::operation) object.text("operation", culprit.operation);
    if (by == By::call_site) {
        object.text("process", culprit.process).text_or_null("site", culprit.site);
        if (culprit.where.known())
            object.member("call_site", [&](std::string &to) { append_call_site(to, culprit.where); });
    }
    object.close();
}

void append_blame(std::string &out, const BlameTables &blame) {
    const auto of = [](By by) {
        return [by](std::string &to, const Culprit &culprit) { append_culprit(to, culprit, by); };
    };
    JsonObject(out)
        .number("waits", blame.waits)
        .number("waited_ns", blame.waited_ns)
        .number("unknown_ns", blame.unknown_ns)
        .number("handover_ns", blame.handover_ns)
        .list("processes", blame.processes, of(By::process))
        .list("call_sites", blame.call_sites, of(By::call_site))
        .list("operations", blame.operations, of(By::operation))
        .close();
}

void append_site_row(std::string &out, const CallSiteRow &row) {
    JsonObject object(out);
    object.text("process", row.process).text_or_null("site", row.site);
    if (row.where.known()) object.member("call_site", [&](std::string &to) { append_call_site(to, row.where); });
    object.number("acquisitions", row.acquisitions)
        .number("contended", row.contended)
        .number("failed", row.failed)
        .member("wait_ns", [&](std::string &to) { append_distribution(to, row.wait); })
        .member("hold_ns", [&](std::string &to) { append_distribution(to, row.hold); })
        .close();
}

void append_segment(std::string &out, const PathSegment &segment) {
    constexpr std::string_view kNames[] = {"ran", "held", "waited"};
    JsonObject(out)
        .text("kind", kNames[static_cast<std::size_t>(segment.kind)])
        .number("from_ns", segment.from_ns)
        .number("to_ns", segment.to_ns)
        .number("pid", segment.pid)
        .number("tid", segment.tid)
        .text("process", segment.process)
        .text_or_null("lock", segment.lock)
        .text_or_null("path", segment.path)
        .number("sooner_ns", segment.sooner_ns)
        .close();
}

void append_path(std::string &out, const CriticalPath &path) {
    JsonObject(out)
        .number("total_ns", path.total_ns)
        .number("waited_ns", path.waited_ns)
        .number("earlier", path.earlier)
        .list("segments", path.segments, append_segment)
        .close();
}

}  // namespace

std::string json_waiting(const Report &report) {
    std::string out;
    std::size_t position = 0;
    const std::string *lock = nullptr;
    JsonObject object(out);
    object.text("schema", "planloop.waiting/1")
        .text("session", report.session)
        .text("at", format_utc(report.to_utc_ns))
        .list("waiting", report.waiting,
              [&](std::string &to, const WaitingRequest &request) {
                  position = lock != nullptr && *lock == request.lock ? position + 1 : 1;
                  lock = &request.lock;
                  JsonObject one(to);
                  add_lock_and_owner(one, request);
                  one.number("position", position)
                      .number("waited_ns", report.to_utc_ns - report.from_utc_ns - request.since_ns)
                      .list("blocked_by", request.blocked_by, append_blocker)
                      .close();
              })
        .close();
    out.push_back('\n');
    return out;
}

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

void append_json(std::string &out, const Finding &finding, const Report &report) {
    JsonObject object(out);
    object.text("timestamp", format_utc(report.from_utc_ns + finding.from_ns)).text("event", "finding");
    add_finding(object, finding);
    object.close();
}

std::string json_before_timeline(const Report &report) {
    std::string out;
    JsonObject object(out);
    object.text("schema", "planloop.locks/1").text("session", report.session).member("recorded", [&](std::string &to) {
        JsonObject(to)
            .text("from", format_utc(report.from_utc_ns))
            .text("to", format_utc(report.to_utc_ns))
            .number("processes", report.processes)
            .number("threads", report.threads)
            .number("events", report.events)
            .number("dropped", report.dropped)
            .close();
    });
    if (!report.shown.empty())
        object.text("shown", report.shown).number("findings_not_shown", report.findings_not_shown);
    if (report.lines_left_out > 0) object.number("timeline_left_out", report.lines_left_out);
    object.list("locks", report.locks, append_lock).member("timeline", [](std::string &to) { to.push_back('['); });
    return out;
}

std::string json_after_timeline(const Report &report) {
    std::string out;
    JsonObject object(out);
    object.list("held", report.held, append_held)
        .list("waiting", report.waiting, append_waiting)
        .list("findings", report.findings, append_finding)
        .member("blame", [&](std::string &to) { append_blame(to, report.blame); })
        .list("call_sites", report.call_sites, append_site_row)
        .member("critical_path", [&](std::string &to) { append_path(to, report.critical_path); })
        .decimal("quantile_error", kQuantileError)
        .list("notes", report.notes, append_json_string)
        .close();
    out.front() = ',';  // goes on inside the object that json_before_timeline() opened
    return ']' + out + '\n';
}

}  // namespace planloop::analysis
