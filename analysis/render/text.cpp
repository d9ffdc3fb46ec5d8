#include "analysis/render/text.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <map>
#include <string_view>
#include <vector>

#include "analysis/render/escape.h"
#include "analysis/render/names.h"
#include "analysis/render/text_tables.h"
#include "lockcore/clock.h"

namespace planloop::analysis {
namespace {

std::string_view word_before(std::string_view text, char separator) {
    return text.substr(0, text.find(separator));
}

constexpr std::int64_t kNsPerUs = 1'000;
constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr std::int64_t kNsPerSecond = 1'000'000'000;
constexpr std::int64_t kMsPerDay = 86'400'000;
constexpr std::size_t kEventColumns = 62;  // "tr_<14>_<6>: lock_requested (operation) hh:mm:ss.mmm", usually

constexpr std::string_view kRed = "\x1b[31m";
constexpr std::string_view kYellow = "\x1b[33m";
constexpr std::string_view kBold = "\x1b[1m";
constexpr std::string_view kPlain = "\x1b[0m";

std::string coloured(const TextStyle &style, std::string_view colour, std::string_view text) {
    return style.colour ? fmt::format("{}{}{}", colour, text, kPlain) : std::string(text);
}

std::string time_of_day(std::int64_t utc_ns) {
    const std::int64_t ms = std::max<std::int64_t>(utc_ns, 0) / kNsPerMs % kMsPerDay;
    return fmt::format("{:02}:{:02}:{:02}.{:03}", ms / 3'600'000, ms / 60'000 % 60, ms / 1'000 % 60, ms % 1'000);
}

std::string process_text(std::string_view name, std::int32_t pid, std::int32_t tid = 0) {
    std::string out = terminal_text(name.empty() ? "process" : name);
    fmt::format_to(std::back_inserter(out), " {}", pid);
    if (tid != 0 && tid != pid) fmt::format_to(std::back_inserter(out), "/{}", tid);
    return out;
}

std::string blocker_text(const Blocker &blocker) {
    if (blocker.pid == 0) return "a program that was not traced";
    return process_text(blocker.process, blocker.pid, blocker.tid);
}

// "perl 12 (40ms), perl 13 (2ms)": who stood in the way, and for how long, where that is known already.
std::string blockers_text(const std::vector<Blocker> &blockers) {
    std::string out;
    for (const Blocker &blocker : blockers) {
        if (!out.empty()) out += ", ";
        out += blocker_text(blocker);
        if (blocker.ns != 0) fmt::format_to(std::back_inserter(out), " ({})", short_duration(blocker.ns));
    }
    return out;
}

// What is not the usual whole-file exclusive flock: "posix, shared, bytes 0-99". Empty for the usual.
template <class Entry>
std::string lock_details(const Entry &entry, wire::Family family) {
    std::string out;
    const auto add = [&](std::string_view word) {
        if (!out.empty()) out += ", ";
        out += word;
    };
    if (family != wire::Family::flock) add(family_name(family));
    if (entry.mode == wire::Mode::shared) add("shared");
    if (const ByteRange range{entry.start, entry.len}; !range.whole()) add(byte_words(range));
    return out;
}

// "flock:fe:00:12": the family stands in front.
wire::Family family_of(const std::string &lock) {
    for (std::size_t i = 0; i < wire::kFamilyCount; ++i)
        if (wire::kFamilies[i].name == word_before(lock, ':')) return static_cast<wire::Family>(i);
    return wire::Family::flock;
}

std::string error_text(int error) {
    const char *name = ::strerrorname_np(error);
    const char *meaning = ::strerrordesc_np(error);
    if (name == nullptr || meaning == nullptr) return fmt::format("error {}", error);
    return fmt::format("{}: {}", name, meaning);
}

std::string what_happened(const TimelineEntry &entry) {
    switch (entry.kind) {
        case EventKind::lock_requested:
            return terminal_text(entry.operation);
        case EventKind::lock_released:
            return fmt::format("hold: {}ms", entry.hold_ns / kNsPerMs);
        default:
            return fmt::format("wait: {}ms", entry.wait_ns / kNsPerMs);
    }
}

// What follows the path on a timeline line, part by part.
std::vector<std::string> remarks_of(const TimelineEntry &entry) {
    std::vector<std::string> remarks;
    if (std::string details = lock_details(entry, entry.family); !details.empty()) {
        remarks.push_back(std::move(details));
    }
    if (entry.kind == EventKind::lock_failed) remarks.push_back(error_text(entry.error));
    if (entry.tries > 1) remarks.push_back(fmt::format("{} tries", entry.tries));
    if (entry.kind == EventKind::lock_released && entry.reason != "unlock") {
        remarks.push_back("ended by " + terminal_text(entry.reason));
    }
    if (entry.kind == EventKind::lock_released && entry.certainty == EndCertainty::approximate) {
        remarks.emplace_back("time approximate");
    }
    if (!entry.blocked_by.empty()) {
        remarks.push_back((entry.kind == EventKind::lock_requested ? "waits for " : "waited for ") +
                          blockers_text(entry.blocked_by));
    }
    return remarks;
}

// Paths by lock id, for findings, which name locks by id only.
class LockNames {
  public:
    explicit LockNames(const Report &report) {
        for (const LockRow &row : report.locks) {
            if (!row.path.empty()) paths_.emplace(row.id, terminal_text(row.path));
        }
    }
    std::string operator()(const std::string &id) const {
        const auto found = paths_.find(id);
        return found == paths_.end() ? terminal_text(id) : found->second;
    }

  private:
    std::map<std::string, std::string> paths_;
};

template <class Entry>
std::string lock_text(const Entry &entry) {
    return terminal_text(entry.path.empty() ? entry.lock : entry.path);
}

// Cuts to `columns`, never inside a character.
std::string cut(const std::string &text, std::size_t columns) {
    if (display_width(text) <= columns || columns < 4) return text;
    std::size_t bytes = 0;
    for (std::size_t width = 0; bytes < text.size(); ++bytes) {
        const bool starts = (static_cast<unsigned char>(text[bytes]) & 0xc0) != 0x80;
        if (starts && width++ == columns - 3) break;
    }
    return text.substr(0, bytes) + "...";
}

// Calls `append` with the first of them and says how many more there are.
constexpr std::size_t kMostListed = 48;
template <class Entries, class Append>
void append_first(std::string &out, const Entries &entries, std::string_view indent, Append append) {
    const std::size_t listed = std::min(entries.size(), kMostListed);
    for (std::size_t i = 0; i < listed; ++i) append(entries[i]);
    if (listed < entries.size())
        fmt::format_to(std::back_inserter(out), "{}... and {} more (--json lists all)\n", indent,
                       entries.size() - listed);
}

void append_held(std::string &out, const Report &report, const TextStyle &style) {
    if (report.held.empty()) return;
    fmt::format_to(std::back_inserter(out), "\n{}\n", coloured(style, kBold, "Held at the end"));
    append_first(out, report.held, "  ", [&](const HeldLock &held) {
        const std::int64_t held_ns = report.to_utc_ns - report.from_utc_ns - held.since_ns;
        std::string line = fmt::format("{} for {}: ", lock_text(held), short_duration(held_ns));
        for (const Holder &holder : held.holders) {
            if (&holder != &held.holders.front()) line += ", ";
            line += process_text(holder.process, holder.pid);
        }
        if (held.holders.empty()) line += process_text(held.process, held.pid, held.tid);
        const bool taker_holds = std::any_of(held.holders.begin(), held.holders.end(),
                                             [&](const Holder &holder) { return holder.pid == held.acquired_by.pid; });
        if (!held.holders.empty() && !taker_holds && held.acquired_by.pid != 0) {
            line += ", acquired by " + process_text(held.acquired_by.process, held.acquired_by.pid);
        }
        append_folded(out, line, "  ", style.columns);
    });
}

void append_waiting(std::string &out, const Report &report, const TextStyle &style) {
    if (report.waiting.empty()) return;
    fmt::format_to(std::back_inserter(out), "\n{}\n", coloured(style, kBold, "Waiting at the end"));
    append_first(out, report.waiting, "  ", [&](const WaitingRequest &request) {
        const std::int64_t waited_ns = report.to_utc_ns - report.from_utc_ns - request.since_ns;
        std::string line = fmt::format("{} for {}: {}", lock_text(request), short_duration(waited_ns),
                                       process_text(request.process, request.pid, request.tid));
        if (!request.blocked_by.empty()) line += ", blocked by " + blockers_text(request.blocked_by);
        append_folded(out, line, "  ", style.columns);
    });
}

std::string joined_locks(const Participant &participant, const LockNames &names) {
    std::string out;
    for (std::size_t i = 0; i < participant.holds.size(); ++i) {
        if (!out.empty()) out += ", ";
        out += names(participant.holds[i]);
        if (i < participant.held.size()) out += in_brackets(participant.held[i]);
    }
    return out;
}

void append_participant(std::string &out, const Participant &participant, const LockNames &names,
                        const TextStyle &style) {
    std::string line = process_text(participant.process, participant.pid, participant.tid);
    if (!participant.holds.empty()) line += " holds " + joined_locks(participant, names);
    if (!participant.parent_holds.empty()) {
        std::string held;
        for (const std::string &id : participant.parent_holds) held += (held.empty() ? "" : ", ") + names(id);
        line += ", for which the holder of " + held + " waits,";
    }
    if (!participant.waits_for.empty()) {
        line += participant.holds.empty() ? " waits for " : " and waits for ";
        line += names(participant.waits_for) + in_brackets(participant.wanted);
    }
    for (const std::int32_t &pid : participant.waits_on) {
        line += &pid == &participant.waits_on.front()
                    ? (participant.parent_holds.empty() ? ", held by " : ", blocked by ")
                    : ", ";
        line += std::to_string(pid);
    }
    append_folded(out, line, "    ", style.columns);
    if (!participant.command_line.empty() && participant.command_line != participant.process) {
        out += cut("      started as: " + terminal_text(participant.command_line), style.columns) + '\n';
    }
    if (participant.started_by.pid != 0) {
        const Starter &starter = participant.started_by;
        out += cut(fmt::format("      started by {}: {}", process_text(starter.process, starter.pid),
                               terminal_text(starter.command_line)),
                   style.columns) +
               '\n';
    }
    // A lock file's user seldom knows by heart where in the program it is taken.
    std::string sites;
    if (!participant.holds_from.empty() && participant.holds_from.front().known())
        sites = "took it in " + call_site_words(participant.holds_from.front());
    if (participant.asked_at.known())
        sites += fmt::format("{}asked in {}", sites.empty() ? "" : ", ", call_site_words(participant.asked_at));
    if (!sites.empty()) append_folded(out, terminal_text(sites), "      ", style.columns);
}

void append_finding(std::string &out, const Finding &finding, const Report &report, const LockNames &names,
                    const TextStyle &style) {
    const std::string_view colour = finding.severity == Severity::error     ? kRed
                                    : finding.severity == Severity::warning ? kYellow
                                                                            : std::string_view{};
    std::string heading = fmt::format("{}: {} ({})", severity_name(finding.severity), terminal_text(finding.kind),
                                      certainty_name(finding.certainty));
    std::string when = "at " + time_of_day(report.from_utc_ns + finding.from_ns);
    if (finding.to_ns > finding.from_ns) when += ", for " + short_duration(finding.to_ns - finding.from_ns);
    if (finding.kind == "deadlock" && finding.to_ns < 0) when += ", still in force at the end";
    const bool fits = display_width(heading) + 1 + display_width(when) <= style.columns;
    heading = colour.empty() ? heading : coloured(style, colour, heading);
    out += '\n' + heading + (fits ? " " : "\n  ") + when + '\n';
    append_folded(out, terminal_text(finding.summary), "  ", style.columns);
    append_first(out, finding.participants, "    ",
                 [&](const Participant &participant) { append_participant(out, participant, names, style); });
}

}  // namespace

void append_folded(std::string &out, std::string_view text, std::string_view indent, std::size_t columns) {
    std::size_t used = 0;
    while (!text.empty()) {
        const std::string_view word = word_before(text, ' ');
        text.remove_prefix(std::min(text.size(), word.size() + 1));
        if (word.empty()) continue;
        const std::size_t width = display_width(word);
        if (used != 0 && used + 1 + width > columns) {
            out.push_back('\n');
            used = 0;
        }
        if (used == 0) {
            out += indent;
            used = indent.size();
        } else {
            out.push_back(' ');
            ++used;
        }
        out += word;
        used += width;
    }
    out.push_back('\n');
}

std::string short_duration(std::int64_t ns) {
    if (ns < 0) ns = 0;
    if (ns < kNsPerUs) return fmt::format("{}ns", ns);
    if (ns < 10 * kNsPerUs) return fmt::format("{}.{}us", ns / kNsPerUs, ns / 100 % 10);
    if (ns < kNsPerMs) return fmt::format("{}us", ns / kNsPerUs);
    if (ns < 10 * kNsPerMs) return fmt::format("{}.{}ms", ns / kNsPerMs, ns / 100'000 % 10);
    if (ns < 10 * kNsPerSecond) return fmt::format("{}ms", ns / kNsPerMs);
    const std::int64_t seconds = ns / kNsPerSecond;
    if (seconds < 600) return fmt::format("{}.{}s", seconds, ns / 100'000'000 % 10);
    if (seconds < 36'000) return fmt::format("{}m{:02}s", seconds / 60, seconds % 60);
    return fmt::format("{}h{:02}m", seconds / 3'600, seconds / 60 % 60);
}

void append_text(std::string &out, const TimelineEntry &entry, const TextStyle &style) {
    std::string event =
        fmt::format("{}: {} ({}) {}", entry.trace_id.empty() ? "tr_unknown" : terminal_text(entry.trace_id),
                    event_name(entry.kind), what_happened(entry), time_of_day(entry.utc_ns));
    const std::size_t width = display_width(event);
    if (entry.kind == EventKind::lock_failed) {
        event = coloured(style, kRed, event);
    } else if (!entry.blocked_by.empty()) {
        event = coloured(style, kYellow, event);
    }
    if (width < kEventColumns) event.append(kEventColumns - width, ' ');
    fmt::format_to(std::back_inserter(out), "{}  {}  {}", event, process_text(entry.process, entry.pid, entry.tid),
                   lock_text(entry));
    for (const std::string &remark : remarks_of(entry)) {
        out += "  ";
        out += remark;
    }
    out.push_back('\n');
}

std::string render_text(const Report &report, const TextStyle &style) {
    std::string out;
    if (report.events != 0) {
        std::string sentence = fmt::format("Session {}, {} to {} UTC: {}.", terminal_text(report.session),
                                           format_utc(report.from_utc_ns).substr(0, 19), time_of_day(report.to_utc_ns),
                                           recorded_sentence(report));
        append_folded(out, sentence, "", style.columns);
    } else {
        append_folded(out, fmt::format("Session {}: {}.", terminal_text(report.session), recorded_sentence(report)), "",
                      style.columns);
    }
    if (!report.shown.empty()) append_folded(out, shown_sentence(report), "", style.columns);
    append_folded(out, "Verdict: " + verdict_sentence(report), "", style.columns);
    const LockNames names(report);
    for (const Finding &finding : report.findings) append_finding(out, finding, report, names, style);
    append_held(out, report, style);
    append_waiting(out, report, style);
    append_tables(out, report, style);
    return out;
}

std::string render_waiting(const Report &report, const TextStyle &style) {
    std::string out;
    if (report.waiting.empty()) return "Nobody waits for a lock.\n";
    const std::string *lock = nullptr;
    std::size_t position = 0;
    for (const WaitingRequest &request : report.waiting) {
        if (lock == nullptr || *lock != request.lock) {
            position = 0;
            append_folded(out, lock_text(request), "", style.columns);
        }
        lock = &request.lock;
        const std::int64_t waited_ns = report.to_utc_ns - report.from_utc_ns - request.since_ns;
        std::string line =
            fmt::format("{}. {} for {}", ++position, process_text(request.process, request.pid, request.tid),
                        short_duration(waited_ns));
        if (std::string details = lock_details(request, family_of(request.lock)); !details.empty())
            line += ", " + details;
        if (!request.blocked_by.empty()) line += ", blocked by " + blockers_text(request.blocked_by);
        append_folded(out, line, "  ", style.columns);
    }
    return out;
}

}  // namespace planloop::analysis
