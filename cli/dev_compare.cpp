// planloop dev compare ID ID: two operations side by side: what each span took, what locks cost, what went wrong.

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <vector>

#include "analysis/render/escape.h"
#include "analysis/render/text.h"
#include "cli/command.h"
#include "cli/json_access.h"
#include "cli/output.h"
#include "cli/record_lookup.h"
#include "cli/trace_records.h"
#include "cli/trace_view.h"
#include "lockcore/redact.h"

namespace planloop::cli {
namespace {

using analysis::EventKind;
using analysis::short_duration;
using analysis::terminal_text;

// Of all spans with one path, or of one lock.
struct Cost {
    std::int64_t ns = 0;  // spans: duration; locks: waited
    std::int64_t hold_ns = 0;
    std::uint64_t count = 0;
};

struct Pair {
    std::string name;
    Cost sides[2];
};

struct Side {
    TraceRecords records;
    std::vector<std::string> errors;
};

Cost &cost_of(std::vector<Pair> &pairs, const std::string &name, std::size_t side) {
    const auto found = std::find_if(pairs.begin(), pairs.end(), [&](const Pair &pair) { return pair.name == name; });
    if (found != pairs.end()) return found->sides[side];
    pairs.push_back({name, {}});
    return pairs.back().sides[side];
}

std::vector<Pair> span_pairs(const Side (&sides)[2]) {
    std::vector<Pair> pairs;
    for (std::size_t side = 0; side < 2; ++side) {
        if (!sides[side].records.trace) continue;
        const TraceView view = view_of(*sides[side].records.trace);
        for (const SpanNode &node : view.nodes) {
            Cost &cost = cost_of(pairs, node.path, side);
            cost.ns += node.span->duration_ns;
            ++cost.count;
        }
    }
    return pairs;
}

std::vector<Pair> lock_pairs(const Side (&sides)[2]) {
    std::vector<Pair> pairs;
    for (std::size_t side = 0; side < 2; ++side) {
        for (const analysis::TimelineEntry &entry : sides[side].records.locks) {
            Cost &cost = cost_of(pairs, entry.path.empty() ? entry.lock : entry.path, side);
            if (entry.kind == EventKind::lock_requested) ++cost.count;
            if (entry.kind == EventKind::lock_acquired || entry.kind == EventKind::lock_failed)
                cost.ns += entry.wait_ns;
            if (entry.kind == EventKind::lock_released) cost.hold_ns += entry.hold_ns;
        }
    }
    return pairs;
}

Side side_of(const FoundTrace &found) {
    Side side{records_of(found.session, found.id), {}};
    for (const RecordDocument &document : side.records.errors) {
        const Json error = Json::parse(document.text, nullptr, false);
        if (error.is_object()) {
            side.errors.push_back(
                fmt::format("{}: {}", json_text(error, "error_type"), json_text(error, "error_message")));
        }
    }
    return side;
}

std::string difference(std::int64_t before_ns, std::int64_t after_ns) {
    const std::int64_t by = after_ns - before_ns;
    return by == 0 ? "=" : fmt::format("{}{}", by > 0 ? '+' : '-', short_duration(by > 0 ? by : -by));
}

std::string cell(const Cost &cost, std::int64_t ns) {
    if (cost.count == 0) return "-";
    return cost.count == 1 ? short_duration(ns) : fmt::format("{} ({}x)", short_duration(ns), cost.count);
}

void append_pairs(std::string &out, std::string_view title, const std::vector<Pair> &pairs, std::int64_t Cost::*what) {
    if (pairs.empty()) return;
    out += fmt::format("\n{:<44} {:>14} {:>14} {:>10}\n", title, "FIRST", "SECOND", "CHANGE");
    for (const Pair &pair : pairs) {
        out += fmt::format("{:<44} {:>14} {:>14} {:>10}\n", terminal_text(pair.name),
                           cell(pair.sides[0], pair.sides[0].*what), cell(pair.sides[1], pair.sides[1].*what),
                           difference(pair.sides[0].*what, pair.sides[1].*what));
    }
}

std::string as_text(const Side (&sides)[2]) {
    std::string out;
    constexpr std::string_view kNames[] = {"first ", "second"};
    for (std::size_t side = 0; side < 2; ++side) {
        const TraceRecords &records = sides[side].records;
        out += fmt::format("{} {}, session {}", kNames[side], records.id, terminal_text(records.session.id));
        if (records.trace) {
            out += fmt::format(": {} {}, {}", terminal_text(records.trace->operation),
                               terminal_text(records.trace->status), short_duration(records.trace->duration_ns));
        }
        out += '\n';
    }
    append_pairs(out, "SPAN", span_pairs(sides), &Cost::ns);
    const std::vector<Pair> locks = lock_pairs(sides);
    append_pairs(out, "WAITED FOR LOCK", locks, &Cost::ns);
    append_pairs(out, "HELD LOCK", locks, &Cost::hold_ns);
    out += "\nERRORS\n";
    bool any = false;
    for (std::size_t side = 0; side < 2; ++side) {
        for (const std::string &error : sides[side].errors) {
            out += fmt::format("{}  {}\n", kNames[side], terminal_text(shortened(error, 300)));
            any = true;
        }
    }
    if (!any) out += "none\n";
    return out;
}

double ms(std::int64_t ns) {
    const std::int64_t whole_us = ns / 1000;
    return static_cast<double>(whole_us) / 1000;
}

std::string as_json(const Side (&sides)[2]) {
    Json json{{"schema", "planloop.compare/1"},
              {"traces", Json::array()},
              {"spans", Json::array()},
              {"locks", Json::array()}};
    for (const Side &side : sides) {
        Json trace{{"trace_id", side.records.id}, {"session_id", side.records.session.id}, {"errors", side.errors}};
        if (side.records.trace) {
            trace["operation"] = side.records.trace->operation;
            trace["status"] = side.records.trace->status;
            trace["duration_ms"] = ms(side.records.trace->duration_ns);
        }
        json["traces"].push_back(std::move(trace));
    }
    for (const Pair &pair : span_pairs(sides)) {
        json["spans"].push_back({{"path", pair.name},
                                 {"count", {pair.sides[0].count, pair.sides[1].count}},
                                 {"duration_ms", {ms(pair.sides[0].ns), ms(pair.sides[1].ns)}},
                                 {"change_ms", ms(pair.sides[1].ns - pair.sides[0].ns)}});
    }
    for (const Pair &pair : lock_pairs(sides)) {
        json["locks"].push_back({{"lock", pair.name},
                                 {"requests", {pair.sides[0].count, pair.sides[1].count}},
                                 {"wait_ms", {ms(pair.sides[0].ns), ms(pair.sides[1].ns)}},
                                 {"hold_ms", {ms(pair.sides[0].hold_ns), ms(pair.sides[1].hold_ns)}}});
    }
    return json_dump(json) + '\n';
}

}  // namespace

Result<int> run_dev_compare(const Arguments &arguments) {
    std::vector<FoundTrace> found;
    for (const std::string &id : arguments.operands) {
        auto trace = find_trace(arguments, id, Wanted::anything);
        if (!trace) return trace.error();
        found.push_back(std::move(*trace));
    }
    const Side sides[2] = {side_of(found[0]), side_of(found[1])};
    for (const Side &side : sides) {
        for (const std::string &note : side.records.notes) say(note);
    }
    write_out(arguments.has("--json") ? as_json(sides) : as_text(sides));
    return kExitDone;
}

}  // namespace planloop::cli
