#include "analysis/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "analysis/critical_path.h"
#include "analysis/filter.h"
#include "analysis/ownership.h"
#include "analysis/passes.h"
#include "analysis/site_statistics.h"
#include "analysis/timeline.h"

namespace planloop::analysis {
namespace {

// Ownership talks to one Observer; timeline and detectors listen.
class Fanout : public Observer {
  public:
    Fanout(const Model &model, Timeline &timeline, Passes &passes, SiteStatistics &sites, CriticalPaths &paths)
        : model_(model), timeline_(timeline), passes_(passes), sites_(sites), paths_(paths) {}

    void requested(const Request &request) override {
        timeline_.requested(request);
        passes_.requested(request);
    }
    void blocked(Index request) override { passes_.blocked(request); }
    void request_done(Index request, const RequestEnd &end) override {
        timeline_.request_done(request, end);
        sites_.request_done(model_.requests[request], end);
        paths_.request_done(request, end);
        passes_.request_done(request, end);
    }
    void waited(const Request &request, const WaitEnd &end) override {
        timeline_.waited(request, end);
        sites_.waited(request, end);
    }
    void acquired(Index hold) override { passes_.acquired(hold); }
    void hold_ended(Index hold, const HoldEnd &end) override {
        timeline_.hold_ended(hold, end);
        sites_.hold_ended(model_.holds[hold], end.t_ns);
        paths_.hold_ended(hold, end);
        passes_.hold_ended(hold, end);
    }
    void process_ended(Index process, const ProcessEnd &end) override {
        paths_.process_ended(process, end);
        passes_.process_ended(process, end);
    }
    void nothing_unlocked(Index lock, const Event &event) override { passes_.nothing_unlocked(lock, event); }
    void decided(std::uint64_t ticket, Reason reason, EndCertainty certainty) override {
        timeline_.decided(ticket, reason, certainty);
        passes_.decided(ticket, reason, certainty);
    }
    void child_wait_begun(Index process) override { passes_.child_wait_begun(process); }
    void event(const Event &event) override {
        paths_.event(event);
        passes_.event(event);
    }
    void applied(const Event &event) override { passes_.applied(event); }

  private:
    const Model &model_;
    Timeline &timeline_;
    Passes &passes_;
    SiteStatistics &sites_;
    CriticalPaths &paths_;
};

std::string entry_id(std::uint64_t entry) {
    return fmt::format("{:016x}", entry);
}

// Of a hold whose range was cut, each remaining part is told by itself.
HeldLock describe_hold(const Model &model, const Hold &hold, const RangeMap::Segment &part, std::int64_t from_ns) {
    HeldLock held;
    const ProcessInfo &taker = model.source.process(hold.image);
    held.lock = model.locks[hold.lock].id;
    held.path = model.locks.path(hold.lock);
    held.lock_entry_id = entry_id(hold.entry);
    held.mode = hold.mode;
    held.since_ns = hold.since_ns - from_ns;
    const bool whole_file = !wire::kFamilies[static_cast<std::size_t>(model.locks[hold.lock].family)].ranged;
    held.start = whole_file ? 0 : part.first;
    held.len = whole_file || part.last == kEndOfFile ? 0 : part.last - part.first + 1;
    held.acquired_by = {hold.pid, taker.name};
    std::uint32_t image = hold.image;
    bool taker_holds = false;
    model.for_holders(hold, [&](Index index) {
        const Process &process = model.table.process(index);
        if (held.holders.empty()) image = process.name_image;
        held.holders.push_back({process.pid, model.source.process(process.name_image).name});
        taker_holds = taker_holds || process.pid == hold.pid;
    });
    // Who took it may be gone; then the first of those that have it now stands for them.
    const bool named = taker_holds || held.holders.empty();
    held.pid = named ? hold.pid : held.holders.front().pid;
    held.tid = named ? hold.tid : held.holders.front().pid;
    const ProcessInfo &holder = named ? taker : model.source.process(image);
    held.process = holder.name;
    held.trace_id = holder.trace_id;
    std::sort(held.holders.begin(), held.holders.end(), [](const Holder &a, const Holder &b) { return a.pid < b.pid; });
    return held;
}

WaitingRequest describe_wait(const Model &model, const Request &request, std::int64_t from_ns) {
    WaitingRequest waiting;
    const ProcessInfo &who = model.source.process(request.image);
    waiting.lock = model.locks[request.lock].id;
    waiting.path = model.locks.path(request.lock);
    waiting.lock_entry_id = entry_id(request.entry);
    waiting.process = who.name;
    waiting.trace_id = who.trace_id;
    waiting.mode = request.mode;
    waiting.pid = request.pid;
    waiting.tid = request.tid;
    waiting.since_ns = request.call_ns - from_ns;
    waiting.start = request.start;
    waiting.len = request.len;
    for (const Blame &blame : request.blame) {
        const ProcessInfo &blocker = model.source.process(blame.pid == 0 ? 0 : blame.image);
        waiting.blocked_by.push_back(
            {blame.pid, blame.tid, blame.ns, blocker.name, blocker.trace_id, blame.entry, blame.until_ns});
    }
    return waiting;
}

bool anything_open(Model &model) {
    for (Index lock = 0; lock < model.locks.size(); ++lock) {
        const auto &domain = model.locks.domain(model.locks[lock].domain);
        if (!domain.owners.empty() || !domain.waiters.empty()) return true;
    }
    return false;
}

// What is open at the end counts up to it.
void close_books(Model &model, Waits &waits, SiteStatistics &sites, Report &report) {
    const std::int64_t to = report.to_utc_ns;
    waits.culprits().settle_for_good();
    for (std::size_t domain = 0, lock = 0; lock < model.locks.size(); ++lock) {
        domain = model.locks[static_cast<Index>(lock)].domain;
        // A range domain belongs to two locks; the first of them settles it.
        if (model.locks.domain(static_cast<Index>(domain)).owners.empty() &&
            model.locks.domain(static_cast<Index>(domain)).waiters.empty())
            continue;
        for (const Index at : model.locks.domain(static_cast<Index>(domain)).owners) {
            for (const RangeMap::Segment &segment : model.ranges[at].map.segments()) {
                Hold &hold = model.holds[segment.hold];
                if (hold.lock != lock) continue;
                if (!hold.listed) {
                    model.locks[hold.lock].hold.add(to - hold.since_ns);
                    sites.hold_ended(hold, to);
                }
                hold.listed = true;
                report.held.push_back(describe_hold(model, hold, segment, report.from_utc_ns));
            }
        }
        for (const Index at : model.locks.domain(static_cast<Index>(domain)).waiters) {
            Request &request = model.requests[at];
            if (request.lock != lock || request.parked) continue;
            const std::int64_t call_ns = to - request.call_ns;
            waits.conclude(at, {to, Outcome::abandoned, 0, call_ns, call_ns});
            waits.count(request, {to, call_ns, Outcome::abandoned, 0});
            report.waiting.push_back(describe_wait(model, request, report.from_utc_ns));
        }
    }
    std::sort(report.held.begin(), report.held.end(), [](const HeldLock &a, const HeldLock &b) {
        return std::tie(a.since_ns, a.lock, a.lock_entry_id, a.start) <
               std::tie(b.since_ns, b.lock, b.lock_entry_id, b.start);
    });
    std::sort(report.waiting.begin(), report.waiting.end(), [](const WaitingRequest &a, const WaitingRequest &b) {
        return std::tie(a.since_ns, a.lock, a.lock_entry_id) < std::tie(b.since_ns, b.lock, b.lock_entry_id);
    });
}

void add_rows(const Model &model, Report &report) {
    for (Index i = 0; i < model.locks.size(); ++i) {
        const Lock &lock = model.locks[i];
        if (lock.acquisitions == 0 && lock.failed == 0 && lock.wait.count() == 0) continue;
        LockRow row;
        row.id = lock.id;
        row.path = model.locks.path(i);
        row.family = lock.family;
        row.acquisitions = lock.acquisitions;
        row.contended = lock.contended;
        row.failed = lock.failed;
        row.wait = lock.wait.distribution();
        row.hold = lock.hold.distribution();
        row.waited_ns = lock.waited_ns;
        row.queue = lock.queue.depth(report.from_utc_ns, report.to_utc_ns);
        report.locks.push_back(std::move(row));
    }
    std::sort(report.locks.begin(), report.locks.end(), [](const LockRow &a, const LockRow &b) {
        if (a.wait.total != b.wait.total) return a.wait.total > b.wait.total;
        return a.id < b.id;
    });
}

}  // namespace

std::string byte_words(const ByteRange &range) {
    if (range.whole()) return "";
    if (range.len == 0) return fmt::format("bytes {} to the end", range.start);
    if (range.len == 1) return fmt::format("byte {}", range.start);
    return fmt::format("bytes {}-{}", range.start, range.start + range.len - 1);
}

std::string in_brackets(const ByteRange &range) {
    return range.whole() ? "" : " (" + byte_words(range) + ")";
}

Report analyse(EventSource &source, const AnalysisOptions &options, const TimelineSink &sink,
               const TimelineSink &vain_waits) {
    Model model(source);
    model.long_wait_ns = options.long_wait_ns;
    model.long_hold_ns = options.long_hold_ns;
    model.listener = options.listener;
    Shown shown(options.filter);
    std::uint64_t lines = 0;
    const bool narrowed = !options.filter.empty() || options.most_lines != UINT64_MAX;
    const TimelineSink chosen = [&](const TimelineEntry &entry) {
        if (!options.filter.empty() && !shown.entry(entry)) return;
        if (sink && ++lines <= options.most_lines) sink(entry);
    };
    // A filter learns from the timeline even where nobody looks at it which locks are told.
    const bool told = sink || !options.filter.empty();
    Timeline timeline(model, narrowed && told ? chosen : sink, vain_waits, options.longest_delay_ns,
                      options.timeline_call_sites);
    Passes passes(model);
    SiteStatistics sites(model);
    CriticalPaths paths(model);
    Fanout fanout(model, timeline, passes, sites, paths);
    Ownership ownership(model, fanout);

    Report report;
    report.session = options.session;
    Event event;
    for (bool first = true; source.next(event); first = false) {
        if (first) {
            report.from_utc_ns = event.t_ns;
            shown.begin_at(event.t_ns);
            timeline.start_at(event.t_ns);
            timeline.tell_between(shown.since_ns(), shown.until_ns());
        }
        report.to_utc_ns = event.t_ns;
        model.tells_blame = vain_waits || (told && event.t_ns >= shown.since_ns() && event.t_ns <= shown.until_ns());
        ownership.apply(event);
    }
    ownership.finish(options.alive);
    ownership.waits().part_crowds();
    timeline.flush();
    if (options.alive && options.now_utc_ns > 0 && anything_open(model)) {
        const std::int64_t now_ns = source.now_ns() > 0 ? source.now_ns() : options.now_utc_ns;
        report.to_utc_ns = model.now_ns = std::max(report.to_utc_ns, now_ns);
    }

    const SourceNotes notes = source.notes();
    report.processes = model.table.processes_seen();
    report.threads = model.table.threads_seen();
    report.events = timeline.lines();
    report.dropped = notes.dropped;
    report.notes = notes.messages;
    passes.finish(report, notes);
    close_books(model, ownership.waits(), sites, report);
    add_rows(model, report);
    ownership.waits().culprits().fill(report.blame, options.named_call_sites);
    paths.fill(report.critical_path, report.from_utc_ns);
    sites.fill(report.call_sites, options.named_call_sites);
    std::stable_sort(report.findings.begin(), report.findings.end(), [](const Finding &a, const Finding &b) {
        if (a.severity != b.severity) return a.severity > b.severity;
        return std::tie(a.from_ns, a.kind, a.summary) < std::tie(b.from_ns, b.kind, b.summary);
    });
    shown.narrow(report);
    if (lines > options.most_lines) report.lines_left_out = lines - options.most_lines;
    return report;
}

}  // namespace planloop::analysis
