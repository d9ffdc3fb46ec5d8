// planloop dev locks: reads a session and shows who waited for whom, as text or as one JSON object.

#include <fmt/format.h>
#include <unistd.h>

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "analysis/export/format.h"
#include "analysis/render/json.h"
#include "analysis/render/render_thread.h"
#include "analysis/render/spill.h"
#include "analysis/render/text.h"
#include "analysis/report.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/fail_on.h"
#include "cli/follow.h"
#include "cli/locks_options.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/system_locks.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

void say_notes(const analysis::Report &report) {
    for (const std::string &note : report.notes) say(note);
}

// The analysis, with each entry of the timeline rendered by another thread meanwhile, if it is wanted.
analysis::Report analyse_and_render(analysis::EventSource &source, const analysis::AnalysisOptions &options,
                                    bool timeline, analysis::TimelineSink render) {
    if (!timeline) return analysis::analyse(source, options);
    analysis::RenderThread thread(std::move(render));
    analysis::Report report =
        analysis::analyse(source, options, [&](const analysis::TimelineEntry &entry) { thread.add(entry); });
    thread.finish();
    return report;
}

Result<analysis::Report> show_json(analysis::EventSource &source, const analysis::AnalysisOptions &options,
                                   bool timeline) {
    analysis::TimelineSpill entries;
    std::string row;
    analysis::Report report = analyse_and_render(source, options, timeline, [&](const analysis::TimelineEntry &entry) {
        row = entries.empty() ? "\n" : ",\n";
        analysis::append_json(row, entry);
        entries.append(row);
    });
    say_notes(report);
    write_out(analysis::json_before_timeline(report));
    if (const Result<void> copied = entries.copy_to(write_out); !copied) return copied.error();
    write_out(analysis::json_after_timeline(report));
    return report;
}

Result<analysis::Report> show_text(analysis::EventSource &source, const analysis::AnalysisOptions &options,
                                   bool timeline, const analysis::TextStyle &style) {
    std::string row;
    bool any = false;
    analysis::Report report = analyse_and_render(source, options, timeline, [&](const analysis::TimelineEntry &entry) {
        row.clear();
        analysis::append_text(row, entry, style);
        any = write_out(row);
    });
    say_notes(report);
    if (report.lines_left_out > 0) write_out(fmt::format("... {} more\n", report.lines_left_out));
    if (any) write_out("\n");
    write_out(analysis::render_text(report, style));
    return report;
}

// The timeline, then the findings, one object a line.
Result<analysis::Report> show_json_lines(analysis::EventSource &source, const analysis::AnalysisOptions &options,
                                         bool timeline) {
    std::string row;
    const auto write = [&](const auto &...what) {
        row.clear();
        analysis::append_json(row, what...);
        row.push_back('\n');
        write_out(row);
    };
    analysis::Report report =
        analyse_and_render(source, options, timeline, [&](const analysis::TimelineEntry &entry) { write(entry); });
    for (const analysis::Finding &finding : report.findings) write(finding, report);
    say_notes(report);
    if (report.lines_left_out > 0) say(fmt::format("{} more lock events, beyond --limit", report.lines_left_out));
    return report;
}

Result<analysis::Report> show_graph(analysis::EventSource &source, const analysis::AnalysisOptions &options) {
    analysis::Report report = analysis::export_session(source, options, *analysis::find_format("dot"), {}, write_out);
    say_notes(report);
    return report;
}

Result<void> set_thresholds(const Arguments &arguments, analysis::AnalysisOptions &options) {
    const std::pair<const char *, std::int64_t *> wanted[] = {{"--long-wait", &options.long_wait_ns},
                                                              {"--long-hold", &options.long_hold_ns}};
    for (const auto &[name, ns] : wanted) {
        constexpr double kMostSeconds = 1e9;
        const Result<std::optional<double>> seconds = seconds_of(arguments, name, kMostSeconds);
        if (!seconds) return seconds.error();
        if (*seconds) *ns = static_cast<std::int64_t>(**seconds * 1e9);
    }
    return {};
}

Result<analysis::Report> show(const Session &session, const Arguments &arguments, LocksFormat format,
                              const analysis::AnalysisOptions &options, const analysis::TextStyle &style) {
    const bool json = format != LocksFormat::table;
    if (arguments.has("--follow")) return follow_session(session, options, json, style);
    if (arguments.has("--waiting")) return show_waiting(session, options, json, style);
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session);
    if (!source) return source.error();
    const bool timeline = !arguments.has("--summary");
    const bool at_the_end = !timeline || format == LocksFormat::json || format == LocksFormat::dot;
    if (at_the_end || isatty(STDOUT_FILENO) == 0) *source = with_progress(std::move(*source));
    switch (format) {
        case LocksFormat::json:
            return show_json(**source, options, timeline);
        case LocksFormat::jsonl:
            return show_json_lines(**source, options, timeline);
        case LocksFormat::dot:
            return show_graph(**source, options);
        case LocksFormat::table:
            break;
    }
    return show_text(**source, options, timeline, style);
}

}  // namespace

Result<int> run_dev_locks(const Arguments &arguments) {
    const Result<std::vector<std::string>> fatal = kinds_to_fail_on(arguments);
    if (!fatal) return fatal.error();
    const Result<LocksFormat> format = locks_format_of(arguments);
    if (!format) return format.error();
    Result<analysis::Filter> filter = filter_of(arguments);
    if (!filter) return filter.error();
    const Result<std::uint64_t> limit = limit_of(arguments);
    if (!limit) return limit.error();
    const analysis::TextStyle style{use_colour(arguments.value("--color").value_or("auto")), output_columns()};
    if (arguments.has("--system")) {
        const Result<analysis::Report> now = show_system(*format, *filter, style);
        if (!now) return now.error();
        return has_finding(*now, *fatal) ? kExitFinding : kExitDone;
    }
    const Result<Session> session = find_session(arguments.value("--session").value_or("latest"));
    if (!session) return session.error();
    analysis::AnalysisOptions options = options_for(*session);
    if (const Result<void> set = set_thresholds(arguments, options); !set) return set.error();
    options.timeline_call_sites = *format != LocksFormat::table;
    options.filter = std::move(*filter);
    options.most_lines = *limit;
    const Result<analysis::Report> report = show(*session, arguments, *format, options, style);
    if (!report) return report.error();
    return has_finding(*report, *fatal) ? kExitFinding : kExitDone;
}

}  // namespace planloop::cli
