// planloop dev locks: reads a session and shows who waited for whom, as text or as one JSON object.

#include <fmt/format.h>

#include <charconv>
#include <cstdint>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "analysis/render/json.h"
#include "analysis/render/spill.h"
#include "analysis/render/text.h"
#include "analysis/report.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/command.h"
#include "cli/fail_on.h"
#include "cli/follow.h"
#include "cli/output.h"
#include "cli/system_locks.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

void say_notes(const analysis::Report &report) {
    for (const std::string &note : report.notes) say(note);
}

Result<analysis::Report> show_json(analysis::EventSource &source, const analysis::AnalysisOptions &options,
                                   bool timeline) {
    analysis::TimelineSpill entries;
    std::string row;
    analysis::TimelineSink sink;
    if (timeline) {
        sink = [&](const analysis::TimelineEntry &entry) {
            row = entries.empty() ? "\n" : ",\n";
            analysis::append_json(row, entry);
            entries.append(row);
        };
    }
    analysis::Report report = analysis::analyse(source, options, sink);
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
    analysis::TimelineSink sink;
    if (timeline) {
        sink = [&](const analysis::TimelineEntry &entry) {
            row.clear();
            analysis::append_text(row, entry, style);
            any = write_out(row);
        };
    }
    analysis::Report report = analysis::analyse(source, options, sink);
    say_notes(report);
    if (any) write_out("\n");
    write_out(analysis::render_text(report, style));
    return report;
}

Result<void> set_thresholds(const Arguments &arguments, analysis::AnalysisOptions &options) {
    const std::pair<const char *, std::int64_t *> wanted[] = {{"--long-wait", &options.long_wait_ns},
                                                              {"--long-hold", &options.long_hold_ns}};
    for (const auto &[name, ns] : wanted) {
        const std::optional<std::string> given = arguments.value(name);
        if (!given) continue;
        double seconds = 0;
        const char *const end = given->data() + given->size();
        const auto [stop, error] = std::from_chars(given->data(), end, seconds);
        constexpr double kMostSeconds = 1e9;
        if (error != std::errc() || stop != end || !(seconds >= 0) || seconds > kMostSeconds)
            return Error{fmt::format("{} wants seconds, as 10 or 0.5, not '{}'", name, *given)};
        *ns = static_cast<std::int64_t>(seconds * 1e9);
    }
    return {};
}

Result<analysis::Report> show(const Session &session, const Arguments &arguments,
                              const analysis::AnalysisOptions &options, bool timeline,
                              const analysis::TextStyle &style) {
    const bool json = arguments.has("--json");
    if (arguments.has("--follow")) return follow_session(session, options, json, style);
    if (arguments.has("--waiting")) return show_waiting(session, options, json, style);
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session);
    if (!source) return source.error();
    return json ? show_json(**source, options, timeline) : show_text(**source, options, timeline, style);
}

}  // namespace

Result<int> run_dev_locks(const Arguments &arguments) {
    const Result<std::vector<std::string>> fatal = kinds_to_fail_on(arguments);
    if (!fatal) return fatal.error();
    const analysis::TextStyle style{use_colour(arguments.value("--color").value_or("auto")), output_columns()};
    if (arguments.has("--system")) {
        for (const char *other : {"--session", "--follow", "--waiting"})
            if (arguments.has(other))
                return Error{fmt::format("--system is about no session; it goes without {}", other)};
        const Result<analysis::Report> now = show_system(arguments.has("--json"), style);
        if (!now) return now.error();
        return has_finding(*now, *fatal) ? kExitFinding : kExitDone;
    }
    const Result<Session> session = find_session(arguments.value("--session").value_or("latest"));
    if (!session) return session.error();
    analysis::AnalysisOptions options = options_for(*session);
    if (const Result<void> set = set_thresholds(arguments, options); !set) return set.error();
    if (arguments.has("--follow") && (arguments.has("--waiting") || arguments.has("--summary")))
        return Error{"--follow shows the timeline; it goes with neither --waiting nor --summary"};
    const bool timeline = !arguments.has("--summary");
    options.timeline_call_sites = arguments.has("--json");
    const Result<analysis::Report> report = show(*session, arguments, options, timeline, style);
    if (!report) return report.error();
    return has_finding(*report, *fatal) ? kExitFinding : kExitDone;
}

}  // namespace planloop::cli
