#include "analysis/render/text_tables.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string_view>
#include <vector>

#include "analysis/render/escape.h"
#include "analysis/render/names.h"
#include "analysis/render/table.h"

namespace planloop::analysis {
namespace {

using Align = TextTable::Align;

constexpr std::size_t kMostLocks = 30;
constexpr std::size_t kMostCulprits = 10;
constexpr std::size_t kMostSegments = 12;

std::string share(std::int64_t part, std::int64_t whole) {
    if (whole <= 0) return "-";
    return fmt::format("{:.1f}%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

std::string counted_share(std::uint64_t part, std::uint64_t whole) {
    return part == 0
               ? "0"
               : fmt::format("{} ({:.0f}%)", part, 100.0 * static_cast<double>(part) / static_cast<double>(whole));
}

void append_more(std::string &out, std::size_t all, std::size_t shown) {
    if (all > shown) fmt::format_to(std::back_inserter(out), "and {} more, shown by --json\n", all - shown);
}

void append_heading(std::string &out, const std::string &text, const TextStyle &style) {
    out.push_back('\n');
    append_folded(out, text, "", style.columns);
}

// One file has a row for each family that it was locked by, and a call on a bad descriptor is about no file.
std::string lock_name(const LockRow &row) {
    std::string name = terminal_text(row.path.empty() ? row.id : row.path);
    if (row.family != wire::Family::flock && !row.path.empty()) name.append("  ").append(family_name(row.family));
    return name;
}

void append_locks(std::string &out, const Report &report, const TextStyle &style) {
    if (report.locks.empty()) return;
    TextTable table({{"ACQUIRED", Align::right},
                     {"CONTENDED", Align::right, 4},
                     {"FAILED", Align::right, 6},
                     {"WAIT TOTAL", Align::right},
                     {"MEAN", Align::right, 12},
                     {"P50", Align::right, 14},
                     {"P90", Align::right, 15},
                     {"P99", Align::right, 8},
                     {"WAIT MAX", Align::right, 3},
                     {"HOLD TOTAL", Align::right, 2},
                     {"MEAN", Align::right, 13},
                     {"P99", Align::right, 11},
                     {"HOLD MAX", Align::right, 5},
                     {"QUEUE", Align::right, 7},
                     {"LOCK", Align::left, 10},
                     {"PATH"}});
    const std::size_t shown = std::min(report.locks.size(), kMostLocks);
    for (std::size_t i = 0; i < shown; ++i) {
        const LockRow &row = report.locks[i];
        table.add_row({std::to_string(row.acquisitions), counted_share(row.contended, row.acquisitions),
                       std::to_string(row.failed), short_duration(row.wait.total), short_duration(row.wait.mean),
                       short_duration(row.wait.p50), short_duration(row.wait.p90), short_duration(row.wait.p99),
                       short_duration(row.wait.max), short_duration(row.hold.total), short_duration(row.hold.mean),
                       short_duration(row.hold.p99), short_duration(row.hold.max), std::to_string(row.queue.max),
                       terminal_text(row.id), lock_name(row)});
    }
    append_heading(
        out,
        fmt::format("Locks. CONTENDED: acquisitions that somebody stood in the way of, and their share of all; "
                    "QUEUE: most that waited at a time; quantiles within {:.1f} %.{}",
                    100 * kQuantileError, report.shown.empty() ? "" : " Of all calls of the session."),
        style);
    table.append_to(out, {}, style.columns);
    append_more(out, report.locks.size(), shown);
}

template <class Name>
void append_culprits(std::string &out, const std::vector<Culprit> &rows, const BlameTables &blame,
                     std::string_view heading, const TextStyle &style, const Name &name) {
    TextTable table({{"CAUSED", Align::right},
                     {"SHARE", Align::right},
                     {"WAITS", Align::right, 1},
                     {std::string(heading), Align::left}});
    const std::size_t shown = std::min(rows.size(), kMostCulprits);
    for (std::size_t i = 0; i < shown; ++i) {
        table.add_row({short_duration(rows[i].caused_ns), share(rows[i].caused_ns, blame.waited_ns),
                       std::to_string(rows[i].waits), name(rows[i])});
    }
    const auto add_rest = [&](std::int64_t ns, const char *what) {
        if (ns > 0) table.add_row({short_duration(ns), share(ns, blame.waited_ns), "-", what});
    };
    add_rest(blame.unknown_ns, "(programs that were not traced)");
    add_rest(blame.handover_ns, "(hand-over: released, the next one not running yet)");
    out.push_back('\n');
    table.append_to(out, {}, style.columns);
    append_more(out, rows.size(), shown);
}

void append_blame(std::string &out, const Report &report, const TextStyle &style) {
    const BlameTables &blame = report.blame;
    if (blame.waited_ns == 0) return;
    append_heading(
        out,
        fmt::format("Who made others wait. SHARE is of {} that {} {}; who waited for a lock while others "
                    "waited for it passes that part on.",
                    short_duration(blame.waited_ns), blame.waits, blame.waits == 1 ? "call waited" : "calls waited"),
        style);
    append_culprits(out, blame.processes, blame, "PROCESS", style, [](const Culprit &row) {
        std::string text = fmt::format("{} {}", terminal_text(row.process), row.pid);
        if (!row.command_line.empty() && row.command_line != row.process)
            text += ": " + terminal_text(row.command_line);
        return text;
    });
    const auto known = [](const Culprit &row) { return !row.site.empty(); };
    if (std::any_of(blame.call_sites.begin(), blame.call_sites.end(), known)) {
        append_culprits(out, blame.call_sites, blame, "CALL SITE", style, [](const Culprit &row) {
            return row.site.empty() ? terminal_text(row.process) + ", place not known" : terminal_text(row.site);
        });
    }
    if (blame.operations.size() > 1 || blame.processes.size() > 1) {
        append_culprits(out, blame.operations, blame, "OPERATION", style,
                        [](const Culprit &row) { return terminal_text(row.operation); });
    }
}

void append_sites(std::string &out, const Report &report, const TextStyle &style) {
    std::vector<const CallSiteRow *> rows;
    for (const CallSiteRow &row : report.call_sites)
        if (!row.site.empty()) rows.push_back(&row);
    if (rows.size() < 2) return;  // one says what the locks say
    TextTable table({{"ACQUIRED", Align::right},
                     {"CONTENDED", Align::right, 3},
                     {"WAIT TOTAL", Align::right},
                     {"P99", Align::right, 5},
                     {"WAIT MAX", Align::right, 4},
                     {"HOLD TOTAL", Align::right, 1},
                     {"P99", Align::right, 6},
                     {"HOLD MAX", Align::right, 2},
                     {"CALL SITE"}});
    const std::size_t shown = std::min(rows.size(), kMostCulprits);
    for (std::size_t i = 0; i < shown; ++i) {
        const CallSiteRow &row = *rows[i];
        table.add_row({std::to_string(row.acquisitions), counted_share(row.contended, row.acquisitions),
                       short_duration(row.wait.total), short_duration(row.wait.p99), short_duration(row.wait.max),
                       short_duration(row.hold.total), short_duration(row.hold.p99), short_duration(row.hold.max),
                       terminal_text(row.site)});
    }
    append_heading(out, "Where locks are taken.", style);
    table.append_to(out, {}, style.columns);
    append_more(out, rows.size(), shown);
}

void append_path(std::string &out, const Report &report, const TextStyle &style) {
    const CriticalPath &path = report.critical_path;
    if (path.waited_ns == 0) return;
    append_heading(
        out,
        fmt::format("Critical path: the chain that decided when the last program ended, {} long. SOONER: how much "
                    "earlier, at most, that would have been without the wait that ended with the step.",
                    short_duration(path.total_ns)),
        style);
    TextTable table({{"AT", Align::right}, {"FOR", Align::right}, {"SOONER", Align::right}, {"STEP"}});
    const std::size_t skipped = path.segments.size() - std::min(path.segments.size(), kMostSegments);
    for (std::size_t i = skipped; i < path.segments.size(); ++i) {
        const PathSegment &segment = path.segments[i];
        std::string step = fmt::format("{} {}", terminal_text(segment.process), segment.pid);
        const std::string lock = terminal_text(segment.path.empty() ? segment.lock : segment.path);
        if (segment.kind == PathSegment::Kind::held) step += " held " + lock;
        if (segment.kind == PathSegment::Kind::waited) step += " waited for " + lock;
        if (segment.kind == PathSegment::Kind::ran) step += " ran";
        table.add_row({short_duration(segment.from_ns), short_duration(segment.to_ns - segment.from_ns),
                       segment.sooner_ns > 0 ? short_duration(segment.sooner_ns) : "-", step});
    }
    out.push_back('\n');
    table.append_to(out, {}, style.columns);
    if (path.earlier + skipped > 0)
        fmt::format_to(std::back_inserter(out), "and {} steps before these\n", path.earlier + skipped);
}

}  // namespace

void append_tables(std::string &out, const Report &report, const TextStyle &style) {
    // The others are sums over the whole session, which is not what was asked for then.
    if (!report.shown.empty()) {
        append_locks(out, report, style);
        return;
    }
    append_blame(out, report, style);
    append_locks(out, report, style);
    append_sites(out, report, style);
    append_path(out, report, style);
}

}  // namespace planloop::analysis
