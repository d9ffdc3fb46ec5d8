// planloop dev export: a session in the format of another tool.

#include <fmt/format.h>
#include <unistd.h>

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/export/format.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/output_file.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

void list_formats() {
    for (const analysis::Format &format : analysis::formats())
        write_out(fmt::format("{:<11} {}; opens in {}\n", format.name, format.what, format.opens));
}

Result<const analysis::Format *> wanted_format(const Arguments &arguments) {
    std::vector<std::string_view> names;
    std::string all;
    for (const analysis::Format &format : analysis::formats()) {
        names.push_back(format.name);
        all += fmt::format("{}{}", all.empty() ? "" : ", ", format.name);
    }
    const std::optional<std::string> name = arguments.value("--format");
    if (!name) return Error{fmt::format("--format is missing: {}", all)};
    const analysis::Format *const format = analysis::find_format(*name);
    if (format != nullptr) return format;
    const std::string_view near = nearest_name(*name, names);
    if (!near.empty()) return Error{fmt::format("unknown format {}; did you mean {}?", printable(*name), near)};
    return Error{fmt::format("unknown format {}; there are {}", printable(*name), all)};
}

}  // namespace

Result<int> run_dev_export(const Arguments &arguments) {
    if (arguments.has("--list")) {
        list_formats();
        return kExitDone;
    }
    const Result<const analysis::Format *> format = wanted_format(arguments);
    if (!format) return format.error();
    const Result<Session> session = find_session(arguments.value("--session").value_or("latest"));
    if (!session) return session.error();
    const std::optional<std::string> path = arguments.value("-o");
    if ((*format)->binary && (!path || *path == "-") && ::isatty(STDOUT_FILENO) == 1)
        return Error{fmt::format("{} is no text for a terminal; name a file with -o", (*format)->name)};
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(*session);
    if (!source) return source.error();
    Result<OutputFile> out = OutputFile::open(path, arguments.has("--force"));
    if (!out) return out.error();
    const analysis::AnalysisOptions options = options_for(*session);
    analysis::SessionRecords records;
    if ((*format)->wants_records) records = analysis::read_session_records(*session);
    const analysis::Report report = analysis::export_session(**source, options, **format, records,
                                                             [&](std::string_view piece) { out->write(piece); });
    for (const std::string &note : report.notes) say(note);
    for (const std::string &note : records.notes) say(note);
    if (const Result<void> written = out->finish(); !written) return written.error();
    return kExitDone;
}

}  // namespace planloop::cli
