#include "analysis/export/report_page.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <map>
#include <utility>
#include <vector>

#include "analysis/call_site.h"
#include "analysis/export/page_assets.h"
#include "analysis/export/page_data.h"
#include "analysis/export/page_text.h"
#include "analysis/render/names.h"
#include "analysis/render/text.h"
#include "lockcore/clock.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostFindings = 200;  // as plain HTML; the rest is counted
constexpr std::size_t kMostTableRows = 5'000;

std::string count_text(std::uint64_t count, std::string_view one, std::string_view many) {
    return fmt::format("{} {}", count, count == 1 ? one : many);
}

// A table whose headings sort it and whose rows can be searched, once the script runs.
class HtmlTable {
  public:
    HtmlTable(std::string &out, std::string_view id, std::string_view title, std::string_view says) : out_(out) {
        fmt::format_to(
            std::back_inserter(out_),
            "<section data-table id=\"{0}\" aria-labelledby=\"{0}-title\"><h2 id=\"{0}-title\">{1}</h2>\n"
            "<p class=\"muted\">{2}</p>\n<div class=\"controls\"><label>Search <input type=\"search\"></label>"
            "<output></output></div>\n<div class=\"scroll\" tabindex=\"0\"><table><thead><tr>",
            id, title, says);
    }
    HtmlTable &heading(std::string_view text) {
        fmt::format_to(std::back_inserter(out_), "<th scope=\"col\">{}</th>", text);
        return *this;
    }
    void begin_rows() { out_ += "</tr></thead><tbody>\n"; }
    void begin_row() { out_ += "<tr>"; }
    HtmlTable &text(std::string_view value) {
        fmt::format_to(std::back_inserter(out_), "<td class=\"name\">{}</td>", html_text(value));
        return *this;
    }
    HtmlTable &number(std::uint64_t value) {
        fmt::format_to(std::back_inserter(out_), "<td class=\"number\" data-value=\"{0}\">{0}</td>", value);
        return *this;
    }
    HtmlTable &duration(std::int64_t ns) {
        fmt::format_to(std::back_inserter(out_), "<td class=\"number\" data-value=\"{}\">{}</td>", ns,
                       short_duration(ns));
        return *this;
    }
    HtmlTable &share(std::int64_t part, std::int64_t whole) {
        const double percent = whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
        fmt::format_to(std::back_inserter(out_), "<td class=\"number\" data-value=\"{0:.3f}\">{0:.1f} %</td>", percent);
        return *this;
    }
    // A button that shows in the timeline what the row is about.
    HtmlTable &show(std::string_view kind, std::string_view key, std::string_view name) {
        fmt::format_to(std::back_inserter(out_),
                       "<td><button type=\"button\" data-goto=\"{}\" data-key=\"{}\" aria-label=\"show {} in the "
                       "timeline\">show</button></td>",
                       kind, html_text(key), html_text(name));
        return *this;
    }
    void end_row() { out_ += "</tr>\n"; }
    void close() { out_ += "</tbody></table></div></section>\n"; }

  private:
    std::string &out_;
};

// Changes with the data, so that markup which came in with it could not know it.
std::string nonce_for(std::string_view data) {
    std::uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
    for (const char c : data) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    return fmt::format("planloop{:016x}", hash);
}

std::string_view worst_severity(const Report &report) {
    return report.findings.empty() ? "none" : severity_name(report.findings.front().severity);
}

void append_header(std::string &out, const Report &report, const SessionRecords &records) {
    fmt::format_to(std::back_inserter(out),
                   "<header><h1>Locks of session {}</h1>\n<p class=\"verdict {}\" id=\"verdict\">{}.</p>\n",
                   html_text(report.session), worst_severity(report), html_text(verdict_sentence(report)));
    fmt::format_to(std::back_inserter(out), "<p>Recorded: {}.", html_text(recorded_sentence(report)));
    if (report.events != 0) {
        fmt::format_to(std::back_inserter(out), " From <time>{}</time> to <time>{}</time>.",
                       format_utc(report.from_utc_ns), format_utc(report.to_utc_ns));
    } else {
        out +=
            " Record a program with <code>planloop dev run --session NAME -- PROGRAM</code>, then make this report "
            "again.";
    }
    out += "</p>\n";
    for (const std::vector<std::string> *notes : {&report.notes, &records.notes})
        for (const std::string &note : *notes)
            fmt::format_to(std::back_inserter(out), "<p class=\"muted\">{}</p>\n", html_text(note));
    out += "</header>\n";
}

// Paths by lock id, for findings, which name locks by id.
std::map<std::string_view, std::string_view> paths_of(const Report &report) {
    std::map<std::string_view, std::string_view> paths;
    for (const LockRow &lock : report.locks)
        if (!lock.path.empty()) paths.emplace(lock.id, lock.path);
    return paths;
}

std::string participant_text(const Participant &participant,
                             const std::map<std::string_view, std::string_view> &paths) {
    const auto named = [&](const std::string &lock) {
        const auto path = paths.find(lock);
        return std::string(path == paths.end() ? lock : path->second);
    };
    std::string out = fmt::format("{} {}", participant.process, participant.pid);
    if (participant.tid != 0 && participant.tid != participant.pid)
        fmt::format_to(std::back_inserter(out), ", thread {}", participant.tid);
    for (std::size_t i = 0; i < participant.holds.size(); ++i) {
        out += (i == 0 ? " holds " : ", ") + named(participant.holds[i]);
        if (i < participant.held.size()) out += in_brackets(participant.held[i]);
    }
    if (!participant.waits_for.empty())
        out += (participant.holds.empty() ? " waits for " : " and waits for ") + named(participant.waits_for) +
               in_brackets(participant.wanted);
    if (participant.asked_at.known()) out += ", asked in " + call_site_words(participant.asked_at);
    if (participant.times > 1) out += fmt::format(", {} times", participant.times);
    if (!participant.command_line.empty()) out += ", started as: " + participant.command_line;
    return out;
}

void append_findings(std::string &out, const Report &report) {
    out += "<section id=\"findings\" aria-labelledby=\"findings-title\"><h2 id=\"findings-title\">Findings</h2>\n";
    if (report.findings.empty()) out += "<p>None.</p>\n";
    const std::map<std::string_view, std::string_view> paths = paths_of(report);
    const std::size_t shown = std::min(report.findings.size(), kMostFindings);
    for (std::size_t i = 0; i < shown; ++i) {
        const Finding &finding = report.findings[i];
        fmt::format_to(std::back_inserter(out), "<article class=\"finding {}\"><h3>{}: {} ({})</h3>\n<p>{}</p>\n",
                       severity_name(finding.severity), severity_name(finding.severity), html_text(finding.kind),
                       certainty_name(finding.certainty), html_text(finding.summary));
        if (!finding.participants.empty()) {
            out += "<ul>";
            for (const Participant &participant : finding.participants)
                fmt::format_to(std::back_inserter(out), "<li>{}</li>", html_text(participant_text(participant, paths)));
            out += "</ul>\n";
        }
        fmt::format_to(std::back_inserter(out),
                       "<p><time>{}</time> <button type=\"button\" data-goto=\"finding\" data-index=\"{}\">Show in the "
                       "timeline</button></p></article>\n",
                       format_utc(report.from_utc_ns + finding.from_ns), i);
    }
    if (report.findings.size() > shown) {
        fmt::format_to(std::back_inserter(out), "<p>And {} more: planloop dev locks lists them all.</p>\n",
                       report.findings.size() - shown);
    }
    out += "</section>\n";
}

void append_errors(std::string &out, const SessionRecords &records) {
    if (records.errors.empty()) return;
    out += "<section id=\"errors\" aria-labelledby=\"errors-title\"><h2 id=\"errors-title\">Errors</h2>\n";
    const std::size_t shown = std::min(records.errors.size(), kMostFindings);
    for (std::size_t i = 0; i < shown; ++i) {
        const RecordedError &error = records.errors[i];
        fmt::format_to(
            std::back_inserter(out),
            "<article class=\"finding error\"><h3>{}</h3>\n<p>{}</p>\n<p><time>{}</time> in {}, trace id "
            "<code>{}</code>: <code>planloop dev trace {}</code> <button type=\"button\" data-goto=\"trace\" "
            "data-key=\"{}\">Show its lock calls</button></p></article>\n",
            html_text(error.type), html_text(error.message), format_utc(error.utc_ns),
            html_text(error.function.empty() ? error.operation : error.function), html_text(error.trace_id),
            html_text(error.trace_id), html_text(error.trace_id));
    }
    if (records.errors.size() > shown)
        fmt::format_to(std::back_inserter(out), "<p>And {} more: planloop dev errors list.</p>\n",
                       records.errors.size() - shown);
    out += "</section>\n";
}

void append_operations(std::string &out, const SessionRecords &records) {
    if (records.traces.empty()) return;
    HtmlTable table(out, "operations", "Operations",
                    "What instrumented programs did, joined with their lock calls by trace id.");
    for (const char *name : {"Operation", "Status", "Started", "Took", "Waited for locks", "Held locks", "Spans",
                             "Command", "Trace id", "Timeline"})
        table.heading(name);
    table.begin_rows();
    for (std::size_t i = 0; i < std::min(records.traces.size(), kMostTableRows); ++i) {
        const RecordedTrace &trace = records.traces[i];
        table.begin_row();
        table.text(trace.operation)
            .text(trace.status)
            .text(format_utc(trace.begin_utc_ns))
            .duration(trace.duration_ns)
            .duration(trace.lock_wait_ns)
            .duration(trace.lock_hold_ns)
            .number(trace.spans.size())
            .text(fmt::format("{}", fmt::join(trace.command, " ")))
            .text(trace.trace_id)
            .show("trace", trace.trace_id, trace.operation)
            .end_row();
    }
    table.close();
}

constexpr std::string_view kTimelineSection = R"HTML(<section id="timeline-section" aria-labelledby="timeline-title">
<h2 id="timeline-title">Timeline</h2>
<noscript><p>The timeline, the graph and the histograms need scripts, which this browser does not run.</p></noscript>
<div class="controls">
<label>Lanes by <select id="lanes-by"><option value="thread">process and thread</option><option value="lock">lock</option></select></label>
<label>Lock <select id="filter-lock"><option value="">all</option></select></label>
<label>Process <select id="filter-process"><option value="">all</option></select></label>
<label>Text <input id="filter-text" type="search" placeholder="path, command, trace id"></label>
<label><input id="filter-contended" type="checkbox"> only calls that had to wait</label>
<button id="filter-reset" type="button">Show all</button>
<output id="filter-count" class="muted"></output>
</div>
<div class="controls">
<button id="zoom-in" type="button" aria-label="zoom in">+</button>
<button id="zoom-out" type="button" aria-label="zoom out">−</button>
<button id="zoom-fit" type="button">Fit</button>
<span id="view-range" class="muted"></span>
</div>
<div class="stage">
<canvas id="timeline" tabindex="0" role="application" aria-labelledby="timeline-title" aria-describedby="timeline-keys"></canvas>
<div id="tooltip" role="tooltip" hidden></div>
</div>
<div class="legend" aria-hidden="true"><span><i class="hold"></i>held (a colour for each lock)</span><span><i class="shared"></i>held shared</span><span><i class="wait"></i>waited</span><span><i class="dead"></i>in a deadlock</span><span><i class="failed"></i>failed</span></div>
<p id="timeline-keys" class="muted">Wheel or + and − zoom, drag or arrow keys move, 0 fits all. n and p go to the next and the previous lock call, h from a wait to its holder.</p>
<p id="announce" class="visually-hidden" role="status" aria-live="polite"></p>
<div id="details" hidden><h3>Selected lock call</h3><dl id="details-list"></dl>
<div class="controls"><button id="details-lock" type="button">Only this lock</button><button id="details-process" type="button">Only this process</button><button id="details-trace" type="button">Only this trace id</button></div></div>
</section>
<div class="pair">
<section aria-labelledby="graph-title"><h2 id="graph-title">Who waits for whom at the cursor</h2>
<p class="muted" id="cursor-time"></p>
<svg id="wait-graph" aria-hidden="true"></svg><ul id="wait-graph-list" aria-live="polite"></ul></section>
<section aria-labelledby="histogram-title"><h2 id="histogram-title">How long</h2>
<figure id="wait-histogram" data-kind="wait"><figcaption>Waits of calls that someone stood in the way of (number, by duration)</figcaption><svg role="img"></svg></figure>
<figure id="hold-histogram" data-kind="hold"><figcaption>Holds (number, by duration)</figcaption><svg role="img"></svg></figure></section>
</div>
)HTML";

void append_left_out(std::string &out, const CallTable &calls) {
    if (calls.left_out() == 0) return;
    fmt::format_to(std::back_inserter(out),
                   "<p class=\"muted\">The timeline draws {}. {} of at most {} are left out of it, not of the tables "
                   "and sums.</p>\n",
                   count_text(calls.calls().size(), "lock call", "lock calls"),
                   count_text(calls.left_out(), "shorter one", "shorter ones"),
                   short_duration(calls.longest_left_out_ns()));
}

void append_locks(std::string &out, const Report &report) {
    HtmlTable table(out, "locks", "Locks",
                    "Each file, by how long was waited for it. Times are totals over all calls.");
    for (const char *name : {"Path", "Family", "Acquired", "Contended", "Failed", "Waited", "Longest wait", "Held",
                             "Longest hold", "Id", "Timeline"})
        table.heading(name);
    table.begin_rows();
    for (std::size_t i = 0; i < std::min(report.locks.size(), kMostTableRows); ++i) {
        const LockRow &lock = report.locks[i];
        table.begin_row();
        table.text(lock.path.empty() ? "(no path)" : lock.path)
            .text(family_name(lock.family))
            .number(lock.acquisitions)
            .number(lock.contended)
            .number(lock.failed)
            .duration(lock.wait.total)
            .duration(lock.wait.max)
            .duration(lock.hold.total)
            .duration(lock.hold.max)
            .text(lock.id)
            .show("lock", lock.id, lock.path)
            .end_row();
    }
    table.close();
}

// Whom one table of culprits names, and how it is called.
struct CulpritTable {
    std::string_view id, title, says, heading;
    const std::vector<Culprit> &rows;
    std::string (*name)(const Culprit &);
};

void append_culprits(std::string &out, const CulpritTable &culprits, const BlameTables &blame) {
    if (culprits.rows.empty()) return;
    HtmlTable table(out, culprits.id, culprits.title, culprits.says);
    for (const std::string_view name : {culprits.heading, std::string_view("Caused"), std::string_view("Share"),
                                        std::string_view("Waits"), std::string_view("Command line")})
        table.heading(name);
    table.begin_rows();
    for (std::size_t i = 0; i < std::min(culprits.rows.size(), kMostTableRows); ++i) {
        const Culprit &culprit = culprits.rows[i];
        table.begin_row();
        table.text(culprits.name(culprit))
            .duration(culprit.caused_ns)
            .share(culprit.caused_ns, blame.waited_ns)
            .number(culprit.waits)
            .text(culprit.command_line)
            .end_row();
    }
    table.close();
}

void append_blame(std::string &out, const BlameTables &blame) {
    if (blame.waited_ns == 0) return;
    const std::string all = fmt::format(
        "Whose holds made others wait, of {} waited in all. A holder that itself waited for a lock passes that part on "
        "to who held it.",
        short_duration(blame.waited_ns));
    append_culprits(out,
                    {"culprit-processes", "Culprits by process", all, "Process", blame.processes,
                     [](const Culprit &culprit) { return fmt::format("{} {}", culprit.process, culprit.pid); }},
                    blame);
    append_culprits(
        out,
        {"culprit-sites", "Culprits by call site", all, "Call site", blame.call_sites,
         [](const Culprit &culprit) { return culprit.site.empty() ? culprit.process + ", somewhere" : culprit.site; }},
        blame);
    append_culprits(out,
                    {"culprit-operations", "Culprits by operation", all, "Operation", blame.operations,
                     [](const Culprit &culprit) { return culprit.operation; }},
                    blame);
}

void append_processes(std::string &out, const CallTable &calls) {
    HtmlTable table(out, "processes", "Processes", "What each process took, how long it waited and held.");
    for (const char *name :
         {"Process", "Pid", "Acquired", "Contended", "Failed", "Waited", "Held", "Command line", "Timeline"})
        table.heading(name);
    table.begin_rows();
    std::size_t shown = 0;
    for (const auto &[pid, sums] : calls.processes()) {
        if (++shown > kMostTableRows) break;
        table.begin_row();
        table.text(sums.process)
            .number(static_cast<std::uint64_t>(pid))
            .number(sums.acquisitions)
            .number(sums.contended)
            .number(sums.failed)
            .duration(sums.wait_ns)
            .duration(sums.hold_ns)
            .text(sums.command_line)
            .show("process", std::to_string(pid), sums.process)
            .end_row();
    }
    table.close();
}

}  // namespace

void ReportPage::write(const Report &report, const SessionRecords &records,
                       const std::function<bool(std::string_view)> &write) {
    calls_.finish(report.to_utc_ns - report.from_utc_ns);
    const std::string data = page_data(report, records, calls_, options_.most_spans);
    const std::string nonce = nonce_for(data);
    std::string out = fmt::format(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src 'nonce-{0}'; "
        "style-src 'nonce-{0}'\">\n"
        "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Locks of session "
        "{1}</title>\n"
        "<style nonce=\"{0}\">\n{2}</style></head><body>\n",
        nonce, html_text(report.session), kPageStyle);
    append_header(out, report, records);
    out += "<main>\n";
    append_findings(out, report);
    append_errors(out, records);
    append_left_out(out, calls_);
    out += kTimelineSection;
    append_locks(out, report);
    append_blame(out, report.blame);
    append_operations(out, records);
    append_processes(out, calls_);
    out += "</main>\n<script type=\"application/json\" id=\"session-data\">";
    if (!write(out) || !write(data)) return;
    write(fmt::format("</script>\n<script nonce=\"{}\">\n{}</script>\n</body></html>\n", nonce, kPageScript));
}

}  // namespace planloop::analysis
