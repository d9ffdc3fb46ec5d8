// What a report comes to, in a sentence each.
#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>
#include <vector>

#include "analysis/render/escape.h"
#include "analysis/render/text.h"

namespace planloop::analysis {
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;

std::string counted(std::uint64_t count, std::string_view one, std::string_view many) {
    return fmt::format("{} {}", count, count == 1 ? one : many);
}

}  // namespace

std::string recorded_sentence(const Report &report) {
    if (report.events == 0) return "no lock call was recorded";
    std::string out = fmt::format("{}, {}", counted(report.processes, "process", "processes"),
                                  counted(report.events, "lock event", "lock events"));
    if (report.shown.empty()) out += " on " + counted(report.locks.size(), "lock", "locks");
    const auto worst = std::max_element(report.locks.begin(), report.locks.end(),
                                        [](const LockRow &a, const LockRow &b) { return a.wait.max < b.wait.max; });
    if (report.shown.empty() && worst != report.locks.end() && worst->wait.max >= kNsPerMs) {
        fmt::format_to(std::back_inserter(out), ", longest wait {} for {}", short_duration(worst->wait.max),
                       terminal_text(worst->path.empty() ? worst->id : worst->path));
    }
    if (report.dropped != 0) {
        fmt::format_to(std::back_inserter(out), ", {} lost", counted(report.dropped, "event", "events"));
    }
    return out;
}

std::string shown_sentence(const Report &report) {
    std::string out = "Shown: " + terminal_text(report.shown);
    if (report.findings_not_shown > 0) {
        fmt::format_to(std::back_inserter(out), "; {} not shown",
                       counted(report.findings_not_shown, "finding is", "findings are"));
    }
    return out + '.';
}

std::string verdict_sentence(const Report &report) {
    std::vector<std::pair<std::string, std::uint64_t>> kinds;  // in the report's order: worst first
    for (const Finding &finding : report.findings) {
        const auto same =
            std::find_if(kinds.begin(), kinds.end(), [&](const auto &kind) { return kind.first == finding.kind; });
        if (same == kinds.end()) {
            kinds.emplace_back(finding.kind, 1);
        } else {
            ++same->second;
        }
    }
    if (kinds.empty() && report.findings_not_shown > 0) return "none of the findings is about what is shown";
    if (kinds.empty()) return "no deadlock and nothing else to report";
    std::string out;
    if (report.findings_not_shown == 0 &&
        std::none_of(kinds.begin(), kinds.end(), [](const auto &kind) { return kind.first == "deadlock"; })) {
        out = "no deadlock";
    }
    for (const auto &[kind, count] : kinds) {
        if (!out.empty()) out += ", ";
        const std::string name = terminal_text(kind);
        out += counted(count, name, kind == "deadlock" ? "deadlocks" : name);
    }
    return out;
}

}  // namespace planloop::analysis
