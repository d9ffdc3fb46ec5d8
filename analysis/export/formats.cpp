#include <fmt/format.h>
#include <string.h>

#include <algorithm>
#include <cerrno>
#include <unordered_map>
#include <utility>

#include "analysis/export/format.h"

namespace planloop::analysis {

// Each in a file of its own, export/<name>.cpp.
std::unique_ptr<Exporter> make_csv(const Write &write);
std::unique_ptr<Exporter> make_dot(const Write &write);
std::unique_ptr<Exporter> make_jsonl(const Write &write);
std::unique_ptr<Exporter> make_otlp(const Write &write);
std::unique_ptr<Exporter> make_perfetto(const Write &write);
std::unique_ptr<Exporter> make_speedscope(const Write &write);

namespace {

constexpr Format kFormats[] = {
    {"perfetto", "threads, waits, holds, spans, who let whom go on", "https://ui.perfetto.dev", true, true,
     make_perfetto},
    {"otlp", "operations, waits and holds as spans (OTLP/JSON lines)", "an OpenTelemetry collector, Jaeger, Tempo",
     false, true, make_otlp},
    {"speedscope", "wait and hold time by call site and lock", "https://www.speedscope.app", false, false,
     make_speedscope},
    {"csv", "a row for each acquisition", "DuckDB, ClickHouse, a spreadsheet", false, false, make_csv},
    {"jsonl", "the same rows as JSON lines", "DuckDB, ClickHouse, jq", false, false, make_jsonl},
    {"dot", "lock order, and who waits for whom", "Graphviz: dot -Tsvg", false, false, make_dot},
};

// Joins what the timeline tells of one lock call.
class Joiner {
  public:
    explicit Joiner(Exporter &exporter) : exporter_(exporter) {}

    void add(const TimelineEntry &entry) {
        exporter_.entry(entry);
        if (entry.kind == EventKind::lock_acquired) {
            Acquisition taken;
            taken.call = entry;
            if (entry.owned) {
                open_.insert_or_assign(entry.entry, std::move(taken));
            } else {
                taken.end = Acquisition::End::unknown;
                exporter_.acquisition(taken);
            }
        } else if (entry.kind == EventKind::lock_released) {
            const auto at = open_.find(entry.entry);
            if (at == open_.end()) return;
            Acquisition &taken = at->second;
            taken.end = Acquisition::End::released;
            taken.hold_ns = entry.hold_ns;
            taken.reason = entry.reason;
            taken.certainty = entry.certainty;
            taken.awaited = entry.awaited;
            exporter_.acquisition(taken);
            open_.erase(at);
        }
    }

    void finish(const Report &report) {
        std::vector<Acquisition *> rest;
        for (auto &[entry, taken] : open_) rest.push_back(&taken);
        std::sort(rest.begin(), rest.end(), [](const Acquisition *a, const Acquisition *b) {
            return std::pair(a->call.utc_ns, a->call.entry) < std::pair(b->call.utc_ns, b->call.entry);
        });
        for (Acquisition *taken : rest) {
            taken->end = Acquisition::End::open;
            taken->hold_ns = report.to_utc_ns - taken->call.utc_ns;
            exporter_.acquisition(*taken);
        }
    }

  private:
    Exporter &exporter_;
    std::unordered_map<std::uint64_t, Acquisition> open_;  // by entry
};

// A call is told whole or not at all, by all the time that it waited and held.
class Chosen : public Exporter {
  public:
    Chosen(Exporter &exporter, const Filter &filter) : exporter_(exporter), all_(filter.empty()), shown_(filter) {}

    void entry(const TimelineEntry &entry) override {
        begin(entry);
        if (all_ || shown_.entry(entry)) exporter_.entry(entry);
    }
    void acquisition(const Acquisition &taken) override {
        if (all_ || shown_.call(taken.call, taken.requested_utc_ns(), taken.ended_utc_ns()))
            exporter_.acquisition(taken);
    }
    void vain_wait(const TimelineEntry &wait) override {
        begin(wait);
        if (all_ || shown_.call(wait, wait.utc_ns - wait.wait_ns, wait.utc_ns)) exporter_.vain_wait(wait);
    }
    void narrow(Report &report) const { shown_.narrow(report); }
    void finish(const Report & /*report*/) override {}

  private:
    // The first event is no lock call mostly, but each call knows when it was.
    void begin(const TimelineEntry &entry) {
        if (!std::exchange(begun_, true)) shown_.begin_at(entry.utc_ns - entry.t_ns);
    }

    Exporter &exporter_;
    bool all_, begun_ = false;
    Shown shown_;
};

}  // namespace

std::span<const Format> formats() {
    return kFormats;
}

const Format *find_format(std::string_view name) {
    for (const Format &format : kFormats)
        if (format.name == name) return &format;
    return nullptr;
}

Report export_session(EventSource &source, AnalysisOptions options, const Format &format, const SessionRecords &records,
                      const Write &write) {
    options.timeline_call_sites = true;
    const Filter filter = std::exchange(options.filter, {});
    const std::unique_ptr<Exporter> exporter = format.make(write);
    Chosen chosen(*exporter, filter);
    Joiner joiner(chosen);
    Report report = analyse(
        source, options, [&](const TimelineEntry &entry) { joiner.add(entry); },
        [&](const TimelineEntry &wait) { chosen.vain_wait(wait); });
    joiner.finish(report);
    chosen.narrow(report);
    if (format.wants_records) exporter->records(records);
    exporter->finish(report);
    return report;
}

std::string entry_words(std::uint64_t entry) {
    return fmt::format("{:016x}", entry);
}

std::string blocker_words(const std::vector<Blocker> &blockers) {
    std::string words;
    for (const Blocker &blocker : blockers) {
        if (!words.empty()) words += ", ";
        if (blocker.pid == 0)
            words += "somebody who is not traced";
        else
            words += fmt::format("{} {}", blocker.process, blocker.pid);
        if (blocker.tid != blocker.pid) words += fmt::format(" thread {}", blocker.tid);
        words += fmt::format(" ({}ms)", blocker.ns / 1'000'000);
    }
    return words;
}

std::string vain_outcome(const TimelineEntry &wait) {
    if (wait.error == 0) return "still waiting";
    if (wait.error == ECANCELED) return "process ended";
    const char *name = ::strerrorname_np(wait.error);
    return name == nullptr ? fmt::format("error {}", wait.error) : name;
}

}  // namespace planloop::analysis
