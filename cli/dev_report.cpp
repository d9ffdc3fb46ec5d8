// planloop dev report: a session as one HTML file.

#include <memory>
#include <string>
#include <string_view>

#include "analysis/export/report_page.h"
#include "analysis/report.h"
#include "analysis/session_records.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/command.h"
#include "cli/output_file.h"
#include "lockcore/session.h"

namespace planloop::cli {

Result<int> run_dev_report(const Arguments &arguments) {
    const Result<Session> session = find_session(arguments.value("--session").value_or("latest"));
    if (!session) return session.error();
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(*session);
    if (!source) return source.error();
    analysis::AnalysisOptions options = options_for(*session);
    options.timeline_call_sites = true;
    Result<OutputFile> out = OutputFile::open(arguments.value("-o"), arguments.has("--force"));
    if (!out) return out.error();
    analysis::ReportPage page({});
    const analysis::Report report =
        analysis::analyse(**source, options, [&](const analysis::TimelineEntry &entry) { page.add(entry); });
    page.write(report, analysis::read_session_records(*session),
               [&](std::string_view text) { return out->write(text); });
    if (const Result<void> written = out->finish(); !written) return written.error();
    return kExitDone;
}

}  // namespace planloop::cli
