#include "cli/system_locks.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <string>
#include <string_view>
#include <thread>

#include "analysis/export/format.h"
#include "analysis/render/escape.h"
#include "analysis/render/json.h"
#include "analysis/render/names.h"
#include "analysis/render/table.h"
#include "analysis/source/system_locks.h"
#include "cli/output.h"
#include "lockcore/clock.h"

namespace planloop::cli {
namespace {

// Long enough for a thread whose lock was granted to run, on a busy machine too.
constexpr std::chrono::milliseconds kBetweenLooks{20};

bool is_circle(const analysis::Finding &finding) {
    return finding.kind == "deadlock" || finding.kind == "self_deadlock";
}

// What a single look cannot tell, and circles that were gone at the second, are left out.
void keep_what_is_certain(analysis::Report &report, const analysis::SystemSource &source) {
    std::vector<analysis::Finding> &findings = report.findings;
    std::erase_if(findings, [](const analysis::Finding &finding) { return !is_circle(finding); });
    if (findings.empty()) return;
    std::this_thread::sleep_for(kBetweenLooks);
    const std::size_t gone =
        std::erase_if(findings, [&](const analysis::Finding &finding) { return !source.still_true(finding); });
    if (gone > 0) report.notes.emplace_back("a circle that was to be seen at the first look had opened at the second");
}

std::string range_words(std::uint64_t start, std::uint64_t len) {
    if (start == 0 && len == 0) return "all";
    return len == 0 ? fmt::format("{}-", start) : fmt::format("{}-{}", start, start + len - 1);
}

std::string who(std::string_view name, std::int32_t pid) {
    return fmt::format("{} {}", name.empty() ? "process" : analysis::terminal_text(name), pid);
}

void show_text(const analysis::Report &report, const analysis::TextStyle &style) {
    std::string out =
        fmt::format("File locks of this machine at {} UTC: {} held, {} waited for.\n",
                    format_utc(report.to_utc_ns).substr(0, 19), report.held.size(), report.waiting.size());
    analysis::TextTable table({{"LOCK"}, {"MODE"}, {"BYTES"}, {"WHO"}, {"PATH"}});
    for (const analysis::HeldLock &held : report.held) {
        std::string holders;
        for (const analysis::Holder &holder : held.holders)
            holders += (holders.empty() ? "held by " : ", ") + who(holder.process, holder.pid);
        table.add_row({held.lock, std::string(analysis::mode_name(held.mode)), range_words(held.start, held.len),
                       holders, analysis::terminal_text(held.path)});
    }
    for (const analysis::WaitingRequest &request : report.waiting) {
        std::string words = who(request.process, request.pid);
        if (request.tid != request.pid) words += fmt::format("/{}", request.tid);
        words += " waits";
        bool first = true;
        for (const analysis::Blocker &blocker : request.blocked_by) {
            words += (first ? " for " : ", ") +
                     (blocker.pid == 0 ? std::string("somebody") : who(blocker.process, blocker.pid));
            first = false;
        }
        table.add_row({request.lock, std::string(analysis::mode_name(request.mode)),
                       range_words(request.start, request.len), words, analysis::terminal_text(request.path)});
    }
    if (!report.held.empty() || !report.waiting.empty()) {
        out += '\n';
        table.append_to(out);
    }
    for (const analysis::Finding &finding : report.findings) {
        out += fmt::format("\n{}: {} ({})\n", analysis::severity_name(finding.severity), finding.kind,
                           analysis::certainty_name(finding.certainty));
        analysis::append_folded(out, analysis::terminal_text(finding.summary), "  ", style.columns);
        for (const analysis::Participant &one : finding.participants) {
            out += fmt::format("    {}: {}\n", one.pid, analysis::terminal_text(one.command_line));
            if (one.started_by.pid != 0)
                out += fmt::format("      started by {}: {}\n", who(one.started_by.process, one.started_by.pid),
                                   analysis::terminal_text(one.started_by.command_line));
        }
    }
    if (!report.shown.empty()) out += fmt::format("\n{}", analysis::shown_sentence(report));
    out += fmt::format("\nVerdict: {}\n", analysis::verdict_sentence(report));
    write_out(out);
}

}  // namespace

Result<analysis::Report> show_system(LocksFormat format, const analysis::Filter &filter,
                                     const analysis::TextStyle &style) {
    const Result<std::unique_ptr<analysis::SystemSource>> source = analysis::look_at_system();
    if (!source) return source.error();
    analysis::AnalysisOptions options;
    options.session = "system";
    options.alive = [](std::int32_t, std::uint64_t) { return true; };
    options.long_wait_ns = options.long_hold_ns = std::numeric_limits<std::int64_t>::max();
    analysis::Report report = analysis::analyse(**source, options);
    keep_what_is_certain(report, **source);
    analysis::Shown(filter).narrow(report);
    for (const std::string &note : report.notes) say(note);
    if (format == LocksFormat::json)
        write_out(analysis::json_before_timeline(report) + analysis::json_after_timeline(report));
    else if (format == LocksFormat::dot)
        analysis::find_format("dot")->make(write_out)->finish(report);
    else
        show_text(report, style);
    return report;
}

}  // namespace planloop::cli
