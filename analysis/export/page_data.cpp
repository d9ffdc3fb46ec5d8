#include "analysis/export/page_data.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <map>
#include <set>
#include <string_view>
#include <utility>

#include "analysis/export/page_text.h"
#include "analysis/render/names.h"

namespace planloop::analysis {
namespace {

class PageData {
  public:
    PageData(const Report &report, const SessionRecords &records, const CallTable &calls, std::size_t most_spans)
        : report_(report), records_(records), calls_(calls), most_spans_(most_spans) {}

    std::string json() {
        fmt::format_to(to(), "{{\"from_utc_ns\":\"{}\",\"duration\":{},\"findings\":[", report_.from_utc_ns,
                       std::max<std::int64_t>(report_.to_utc_ns - report_.from_utc_ns, 0));
        list(report_.findings, [&](const Finding &finding) { append_finding(finding); });
        out_ += "],\"threads\":[";
        list(calls_.threads(),
             [&](const CallTable::Thread &thread) { fmt::format_to(to(), "[{},{}]", thread.pid, thread.tid); });
        out_ += "],\"images\":[";
        list(calls_.images(), [&](const CallTable::Image &image) {
            out_ += "{\"process\":";
            append_script_string(out_, image.process);
            out_ += ",\"command_line\":";
            append_script_string(out_, image.command_line);
            out_ += '}';
        });
        out_ += "],\"locks\":[";
        list(calls_.locks(), [&](const CallTable::LockName &lock) {
            out_ += "{\"id\":";
            append_script_string(out_, lock.id);
            out_ += ",\"path\":";
            append_script_string(out_, lock.path);
            fmt::format_to(to(), ",\"family\":\"{}\"}}", family_name(lock.family));
        });
        out_ += "],\"texts\":[";
        list(calls_.texts(), [&](const std::string &text) { append_script_string(out_, text); });
        out_ += "],\"spans\":[";
        append_spans();
        out_ += "],\"errnos\":{";
        append_error_names();
        fmt::format_to(to(), "}},\"columns\":{{\"count\":{}", calls_.calls().size());
        append_columns();
        out_ += "}}";
        return std::move(out_);
    }

  private:
    std::back_insert_iterator<std::string> to() { return std::back_inserter(out_); }

    template <class List, class Append>
    void list(const List &elements, const Append &append) {
        bool first = true;
        for (const auto &element : elements) {
            if (!first) out_ += ',';
            first = false;
            append(element);
        }
    }

    // [pid, tid, begin, duration, depth, name, status], by begin.
    void append_spans() {
        std::size_t left = most_spans_;
        bool first = true;
        for (const RecordedTrace &trace : records_.traces) {
            std::map<std::uint64_t, int> depths;  // by span id
            for (const RecordedSpan &span : trace.spans) {
                const auto parent = depths.find(span.parent_id);
                const int depth = span.parent_id != 0 && parent != depths.end() ? parent->second + 1
                                  : span.parent.empty()                         ? 0
                                                                                : 1;
                if (span.id != 0) depths[span.id] = depth;
                if (left == 0) return;
                --left;
                if (!std::exchange(first, false)) out_ += ',';
                fmt::format_to(to(), "[{},{},{},{},{},", span.pid, span.tid, span.begin_utc_ns - report_.from_utc_ns,
                               span.duration_ns, depth);
                append_script_string(out_, span.name);
                out_ += ',';
                append_script_string(out_, span.status);
                out_ += ']';
            }
        }
    }

    void append_error_names() {
        std::set<int> errors;
        for (const Call &call : calls_.calls()) errors.insert(call.error);
        errors.erase(0);
        list(errors, [&](int error) {
            const char *const name = ::strerrorname_np(error);
            fmt::format_to(to(), "\"{}\":\"{}\"", error, name == nullptr ? "" : name);
        });
    }

    void append_finding(const Finding &finding) {
        fmt::format_to(to(), "{{\"kind\":\"{}\",\"severity\":\"{}\",\"from_ns\":{},\"to_ns\":", finding.kind,
                       severity_name(finding.severity), finding.from_ns);
        out_ += finding.to_ns < 0 ? "null" : fmt::format("{}", finding.to_ns);
        out_ += ",\"locks\":[";
        list(finding.locks, [&](const std::string &lock) { append_script_string(out_, lock); });
        out_ += "],\"participants\":[";
        list(finding.participants, [&](const Participant &participant) {
            fmt::format_to(to(), "{{\"pid\":{},\"tid\":{},\"waits_for\":", participant.pid, participant.tid);
            append_script_string(out_, participant.waits_for);
            out_ += '}';
        });
        out_ += "]}";
    }

    template <class Value>
    void column(std::string_view name, const Value &value) {
        column_.clear();
        for (const Call &call : calls_.calls()) append_varint(column_, static_cast<std::uint64_t>(value(call)));
        append_column(name);
    }
    void append_column(std::string_view name) {
        fmt::format_to(to(), ",\"{}\":\"", name);
        append_base64(out_, column_);
        out_ += '"';
    }

    void append_columns() {
        std::int64_t before_ns = 0;
        column("begin", [&](const Call &call) {
            const std::int64_t begin_ns = std::max(call.begin_ns, before_ns);  // the page counts from 0 up
            return begin_ns - std::exchange(before_ns, begin_ns);
        });
        column("wait", [](const Call &call) { return std::max<std::int64_t>(call.wait_ns, 0); });
        column("hold", [](const Call &call) { return std::max<std::int64_t>(call.hold_ns, 0); });
        column("thread", [](const Call &call) { return call.thread; });
        column("image", [](const Call &call) { return call.image; });
        column("lock", [](const Call &call) { return call.lock; });
        column("trace", [](const Call &call) { return call.trace; });
        column("operation", [](const Call &call) { return call.operation; });
        column("reason", [](const Call &call) { return call.reason; });
        column("site", [](const Call &call) { return call.site; });
        column("error", [](const Call &call) { return call.error; });
        column("tries", [](const Call &call) { return call.tries; });
        column("start", [](const Call &call) { return call.start; });
        column("len", [](const Call &call) { return call.len; });
        column("entry_high", [](const Call &call) { return call.entry >> 32; });
        column("entry_low", [](const Call &call) { return call.entry & 0xffffffffu; });
        column_.clear();
        for (const Call &call : calls_.calls()) {
            column_.push_back(static_cast<char>(static_cast<unsigned>(call.outcome) |
                                                (call.mode == wire::Mode::shared ? 4u : 0u) | (call.open ? 8u : 0u) |
                                                (call.approximate ? 16u : 0u)));
        }
        append_column("flags");
        column_.clear();
        for (const Call &call : calls_.calls()) {
            append_varint(column_, call.blockers.size());
            for (const auto &[thread, ns] : call.blockers) {
                append_varint(column_, thread);
                append_varint(column_, static_cast<std::uint64_t>(std::max<std::int64_t>(ns, 0)));
            }
        }
        append_column("blockers");
    }

    const Report &report_;
    const SessionRecords &records_;
    const CallTable &calls_;
    std::size_t most_spans_;
    std::string out_, column_;
};

}  // namespace

std::string page_data(const Report &report, const SessionRecords &records, const CallTable &calls,
                      std::size_t most_spans) {
    return PageData(report, records, calls, most_spans).json();
}

}  // namespace planloop::analysis
