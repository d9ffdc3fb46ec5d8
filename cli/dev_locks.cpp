// planloop dev locks: reads a session and shows who waited for whom, as text or as one JSON object.

#include <chrono>

#include "analysis/event_source.h"
#include "analysis/render_json.h"
#include "analysis/render_spill.h"
#include "analysis/render_text.h"
#include "analysis/report.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/session_liveness.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

void say_notes(const analysis::Report &report) {
    for (const std::string &note : report.notes) say(note);
}

Result<int> show_json(analysis::EventSource &source, const analysis::AnalysisOptions &options, bool timeline) {
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
    const analysis::Report report = analysis::analyse(source, options, sink);
    say_notes(report);
    write_out(analysis::json_before_timeline(report));
    if (const Result<void> copied = entries.copy_to(write_out); !copied) return copied.error();
    write_out(analysis::json_after_timeline(report));
    return kExitDone;
}

Result<int> show_text(analysis::EventSource &source, const analysis::AnalysisOptions &options, bool timeline,
                      const analysis::TextStyle &style) {
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
    const analysis::Report report = analysis::analyse(source, options, sink);
    say_notes(report);
    if (any) write_out("\n");
    write_out(analysis::render_text(report, style));
    return kExitDone;
}

}  // namespace

Result<int> run_dev_locks(const Arguments &arguments) {
    const Result<Session> session = find_session(arguments.value("--session").value_or("latest"));
    if (!session) return session.error();
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(*session);
    if (!source) return source.error();
    analysis::AnalysisOptions options;
    options.session = session->id;
    options.alive = liveness_of(*session);
    options.now_utc_ns = std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
    const bool timeline = !arguments.has("--summary");
    if (arguments.has("--json")) return show_json(**source, options, timeline);
    const analysis::TextStyle style{use_colour(arguments.value("--color").value_or("auto")), output_columns()};
    return show_text(**source, options, timeline, style);
}

}  // namespace planloop::cli
