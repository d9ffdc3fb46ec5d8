// Perfetto's native trace, for ui.perfetto.dev and trace_processor (perfetto_packets.h has its encoding).
//
// What is where: a track for each process and thread; on the thread's the waits, with their holder among the
// arguments; below it a track for each lock that it held, with the holds. Slices of one track must nest, and holds do
// not: where two would overlap (two ranges of a file, a wait that goes on between tries), the later to end gets another
// track of the same name, and the viewer draws them in one place. A flow leads from the end of a hold to the hold that
// it let through. What instrumented operations recorded stands as spans on a track below the thread. Counters tell how
// many blocked calls wait for a lock; findings are instants on a track of their own.
//
// Times are UTC nanoseconds. A slice is written when it has ended, so packets are not in order of time; the trace
// processor sorts them. The end of a hold that somebody waits for is kept back until it is known whom it let through.
//
// Memory: by threads, locks held by each, and what is open; and kMostKept holds.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <queue>
#include <string>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "analysis/call_site.h"
#include "analysis/export/format.h"
#include "analysis/export/perfetto_packets.h"
#include "analysis/export/row.h"

namespace planloop::analysis {
namespace {

using namespace perfetto;

// Holds that have ended and wait for whom they let through; then the oldest is written without. A waiter comes back
// some microseconds after the release, so there would have to be as many other releases meanwhile.
constexpr std::size_t kMostKept = 16'384;

// Tracks that take turns at slices which may overlap.
class Lanes {
  public:
    // Of slices in the order of their ends. The lane whose last slice ended before this one begins; a new one, if none.
    std::size_t place(std::int64_t from_ns, std::int64_t to_ns) {
        std::size_t lane = 0;
        while (lane < ends_.size() && ends_[lane] >= from_ns) ++lane;
        if (lane == ends_.size()) ends_.push_back(0);
        ends_[lane] = to_ns;
        return lane;
    }

  private:
    std::vector<std::int64_t> ends_;
};

class Perfetto : public Exporter {
  public:
    explicit Perfetto(const Write &write) : packets_(write) {}

    void entry(const TimelineEntry &entry) override {
        if (!started_) start(entry.utc_ns - entry.t_ns);
        settle_counters(entry.utc_ns);
        switch (entry.kind) {
            case EventKind::lock_requested:
                if (entry.blocking && !entry.blocked_by.empty()) {
                    waiting_.emplace(entry.entry, counter_of(entry));
                    count(waiting_.at(entry.entry), entry.utc_ns, 1);
                }
                return;
            case EventKind::lock_acquired:
                stop_waiting(entry.entry, entry.utc_ns);
                wait(entry, "acquired");
                let_through(entry);
                return;
            case EventKind::lock_failed:
                stop_waiting(entry.entry, entry.utc_ns);
                return;
            default:
                return;
        }
    }

    void acquisition(const Acquisition &taken) override {
        if (taken.end == Acquisition::End::unknown) return;
        if (taken.awaited || begins_as_another_ends(taken)) {
            keep(taken);
        } else {
            write_hold(taken, {});
        }
    }

    void vain_wait(const TimelineEntry &entry) override {
        if (!started_) start(entry.utc_ns - entry.t_ns);
        wait(entry, vain_outcome(entry));
        // It may be told before the timeline has come to its beginning.
        if (entry.error == ECANCELED) gone_.push({entry.utc_ns, entry.entry});
    }

    void records(const SessionRecords &records) override {
        struct Span {
            const RecordedTrace *trace;
            const RecordedSpan *span;
            std::int64_t end_ns() const { return span->begin_utc_ns + span->duration_ns; }
        };
        std::vector<Span> spans;
        for (const RecordedTrace &trace : records.traces)
            for (const RecordedSpan &span : trace.spans) spans.push_back({&trace, &span});
        // The outer one first.
        std::stable_sort(spans.begin(), spans.end(), [](const Span &a, const Span &b) {
            return std::pair(a.span->begin_utc_ns, b.end_ns()) < std::pair(b.span->begin_utc_ns, a.end_ns());
        });
        if (!spans.empty() && !started_) start(spans.front().span->begin_utc_ns);
        for (const Span &one : spans) begin_span(*one.trace, *one.span);
        for (auto &[who, lanes] : span_lanes_)
            for (SpanLane &lane : lanes) end_spans(lane, std::numeric_limits<std::int64_t>::max());
    }

    void finish(const Report &report) override {
        if (!started_) start(report.from_utc_ns);
        settle_counters(report.to_utc_ns);
        for (const Kept &one : kept_) write_hold(one.hold, one.flows);
        if (report.findings.empty()) return;
        const std::uint64_t track = ++tracks_;
        packets_.describe(track, 0, "findings", [](pbf_writer &) {});
        for (const Finding &finding : report.findings) tell(finding, report.from_utc_ns, track);
    }

  private:
    struct Thread {
        std::uint64_t track = 0;
        Lanes waits;
        std::vector<std::uint64_t> wait_tracks;
    };
    struct HeldTracks {
        Lanes lanes;
        std::vector<std::uint64_t> tracks;
    };
    struct Counter {
        std::uint64_t track = 0;
        std::int64_t value = 0;
    };
    struct SpanLane {
        std::uint64_t track = 0;
        std::vector<std::int64_t> open;  // ends of the spans that are, the innermost last
    };
    struct Kept {
        Acquisition hold;
        std::vector<std::uint64_t> flows;
    };

    void start(std::int64_t utc_ns) {
        packets_.start(utc_ns);
        started_ = true;
    }

    // Spans of one thread nest, but those of two operations on it need not: these take turns at tracks.
    void begin_span(const RecordedTrace &trace, const RecordedSpan &span) {
        const std::int64_t begin_ns = span.begin_utc_ns, end_ns = begin_ns + span.duration_ns;
        TimelineEntry who;
        who.pid = span.pid == 0 ? trace.pid : span.pid;
        who.tid = span.tid == 0 ? who.pid : span.tid;
        who.process = trace.process;
        who.command_line = fmt::format("{}", fmt::join(trace.command, " "));
        const std::uint64_t parent = thread(who).track;
        std::vector<SpanLane> &lanes = span_lanes_[{who.pid, who.tid}];
        std::size_t at = 0;
        for (; at < lanes.size(); ++at) {
            end_spans(lanes[at], begin_ns);
            if (lanes[at].open.empty() || lanes[at].open.back() >= end_ns) break;
        }
        if (at == lanes.size()) {
            lanes.push_back({++tracks_, {}});
            packets_.describe(lanes.back().track, parent, "operations", [](pbf_writer &) {});
        }
        lanes[at].open.push_back(end_ns);
        packets_.event(begin_ns, lanes[at].track, kSliceBegin, [&](pbf_writer &event) {
            packets_.name(event, "span", span.name);
            packets_.text(event, "trace_id", trace.trace_id, true);
            packets_.text(event, "status", span.status, true);
            packets_.text(event, "error", span.error);
            for (const auto &[key, value] : span.metadata) packets_.text(event, key, value);
        });
    }
    void end_spans(SpanLane &lane, std::int64_t until_ns) {
        while (!lane.open.empty() && lane.open.back() <= until_ns) {
            packets_.event(lane.open.back(), lane.track, kSliceEnd, [](pbf_writer &) {});
            lane.open.pop_back();
        }
    }

    void process(const TimelineEntry &call) {
        const auto [at, made] = processes_.try_emplace(call.pid);
        auto &[track, command_line] = at->second;
        if (!made && (call.command_line.empty() || command_line == call.command_line)) return;
        if (made) track = ++tracks_;
        command_line = call.command_line;  // of the program that it runs now
        packets_.describe(track, 0, {}, [&](pbf_writer &descriptor) {
            pbf_writer fields(descriptor, kProcess);
            fields.add_int32(kProcessPid, call.pid);
            fields.add_string(kCommandLine, utf8(call.command_line));
            fields.add_string(kProcessName, utf8(call.process));
        });
    }

    Thread &thread(const TimelineEntry &call) {
        process(call);
        Thread &thread = threads_[{call.pid, call.tid}];
        if (thread.track == 0) {
            thread.track = ++tracks_;
            thread.wait_tracks.push_back(thread.track);
            packets_.describe(thread.track, 0, {}, [&](pbf_writer &descriptor) {
                pbf_writer fields(descriptor, kThread);
                fields.add_int32(kThreadPid, call.pid);
                fields.add_int32(kThreadTid, call.tid);
                fields.add_string(kThreadName, utf8(call.process));
            });
        }
        return thread;
    }

    static std::string lock_name(const TimelineEntry &call) {
        if (call.path.empty()) return call.lock;
        return fmt::format("{} ({})", call.path, family_name(call.family));
    }

    std::uint64_t hold_track(const TimelineEntry &call, std::int64_t from_ns, std::int64_t to_ns) {
        const std::uint64_t parent = thread(call).track;
        HeldTracks &held = held_[{call.pid, call.tid, call.lock}];
        const std::size_t lane = held.lanes.place(from_ns, to_ns);
        if (lane == held.tracks.size()) {
            held.tracks.push_back(++tracks_);
            packets_.describe(held.tracks.back(), parent, lock_name(call), [](pbf_writer &) {});
        }
        return held.tracks[lane];
    }

    void wait(const TimelineEntry &call, std::string_view outcome) {
        const std::int64_t from_ns = call.utc_ns - call.wait_ns;
        Thread &on = thread(call);
        const std::size_t lane = on.waits.place(from_ns, call.utc_ns);
        if (lane == on.wait_tracks.size()) {
            on.wait_tracks.push_back(++tracks_);
            packets_.describe(on.wait_tracks.back(), on.track, "waits", [](pbf_writer &) {});
        }
        const std::uint64_t track = on.wait_tracks[lane];
        packets_.event(from_ns, track, kSliceBegin, [&](pbf_writer &event) {
            packets_.name(event, "wait", "wait for " + lock_name(call));
            packets_.text(event, "holder", blocker_words(call.blocked_by));
            if (!call.blocked_by.empty()) {
                packets_.number(event, "holder_pid", call.blocked_by.front().pid);
                packets_.number(event, "holder_tid", call.blocked_by.front().tid);
            }
            packets_.text(event, "outcome", outcome, true);
            packets_.number(event, "wait_ns", call.wait_ns);
            if (call.tries > 1) packets_.number(event, "tries", call.tries);
            annotate(event, call);
        });
        packets_.event(call.utc_ns, track, kSliceEnd, [](pbf_writer &) {});
    }

    void annotate(pbf_writer &event, const TimelineEntry &call) {
        packets_.text(event, "lock", call.lock, true);
        packets_.text(event, "path", call.path, true);
        packets_.text(event, "mode", mode_name(call.mode), true);
        if (call.start != 0 || call.len != 0) {
            packets_.number(event, "range_start", static_cast<std::int64_t>(call.start));
            packets_.number(event, "range_len", static_cast<std::int64_t>(call.len));
        }
        packets_.text(event, "trace_id", call.trace_id, true);
        packets_.text(event, "operation", call.operation, true);
        packets_.text(event, "command_line", call.command_line, true);
        packets_.text(event, "lock_entry_id", call.lock_entry_id);
        if (call.call_site != nullptr && call.call_site->known())
            packets_.text(event, "call_site", call_site_words(*call.call_site), true);
    }

    void write_hold(const Acquisition &taken, const std::vector<std::uint64_t> &flows) {
        const TimelineEntry &call = taken.call;
        const std::uint64_t track = hold_track(call, call.utc_ns, taken.ended_utc_ns());
        packets_.event(call.utc_ns, track, kSliceBegin, [&](pbf_writer &event) {
            packets_.name(event, "hold", "hold " + lock_name(call));
            if (let_through_.erase(call.entry) != 0) event.add_fixed64(kTerminatingFlowIds, call.entry);
            packets_.number(event, "hold_ns", taken.hold_ns);
            packets_.text(event, "ended", end_words(taken), true);
            if (taken.certainty == EndCertainty::approximate) packets_.flag(event, "ended_exactly", false);
            annotate(event, call);
        });
        packets_.event(taken.ended_utc_ns(), track, kSliceEnd, [&](pbf_writer &event) {
            for (const std::uint64_t flow : flows) event.add_fixed64(kFlowIds, flow);
        });
    }

    void keep(const Acquisition &taken) {
        if (kept_.size() == kMostKept) {
            kept_by_entry_.erase(kept_.front().hold.call.entry);
            write_hold(kept_.front().hold, kept_.front().flows);
            kept_.pop_front();
        }
        kept_.push_back({taken, {}});
        kept_by_entry_[taken.call.entry] = &kept_.back();
    }

    // The last of those who stood in the way, when it had let go, let this one through.
    void let_through(const TimelineEntry &acquired) {
        if (!acquired.owned) return;
        const Blocker *last = nullptr;
        for (const Blocker &blocker : acquired.blocked_by)
            if (blocker.entry != 0 && blocker.until_utc_ns != 0 &&
                (last == nullptr || blocker.until_utc_ns > last->until_utc_ns))
                last = &blocker;
        if (last == nullptr) return;
        const auto at = kept_by_entry_.find(last->entry);
        if (at == kept_by_entry_.end()) return;
        at->second->flows.push_back(acquired.entry);
        let_through_[acquired.entry] = last->entry;
    }

    // At the moment in which a hold ended that is kept and lets it through: at equal times the end must be written
    // first.
    bool begins_as_another_ends(const Acquisition &taken) const {
        const auto flow = let_through_.find(taken.call.entry);
        if (flow == let_through_.end()) return false;
        const auto source = kept_by_entry_.find(flow->second);
        return source != kept_by_entry_.end() && source->second->hold.ended_utc_ns() >= taken.call.utc_ns;
    }

    std::uint64_t counter_of(const TimelineEntry &call) {
        Counter &counter = counters_[call.lock];
        if (counter.track == 0) {
            counter.track = ++tracks_;
            packets_.describe(counter.track, 0, "waiters of " + lock_name(call), [](pbf_writer &descriptor) {
                pbf_writer fields(descriptor, kCounter);
                fields.add_string(kCounterUnitName, "calls");
            });
            by_track_.emplace(counter.track, &counter);
        }
        return counter.track;
    }
    void count(std::uint64_t track, std::int64_t utc_ns, std::int64_t change) {
        Counter &counter = *by_track_.at(track);
        counter.value += change;
        packets_.event(utc_ns, track, kCounterType,
                       [&](pbf_writer &event) { event.add_int64(kCounterValue, counter.value); });
    }
    void stop_waiting(std::uint64_t entry, std::int64_t utc_ns) {
        const auto at = waiting_.find(entry);
        if (at == waiting_.end()) return;
        count(at->second, utc_ns, -1);
        waiting_.erase(at);
    }
    void settle_counters(std::int64_t until_utc_ns) {
        while (!gone_.empty() && gone_.top().first <= until_utc_ns) {
            stop_waiting(gone_.top().second, gone_.top().first);
            gone_.pop();
        }
    }

    void tell(const Finding &finding, std::int64_t from_utc_ns, std::uint64_t track) {
        packets_.event(from_utc_ns + finding.from_ns, track, kInstant, [&](pbf_writer &event) {
            packets_.name(event, "finding", finding.kind);
            packets_.text(event, "severity", severity_name(finding.severity), true);
            packets_.text(event, "certainty", certainty_name(finding.certainty), true);
            packets_.text(event, "summary", finding.summary);
            std::string participants;
            for (const Participant &one : finding.participants)
                participants += fmt::format("{}{} {}", participants.empty() ? "" : ", ", one.process, one.pid);
            packets_.text(event, "participants", participants);
        });
    }

    PacketWriter packets_;
    bool started_ = false;
    std::uint64_t tracks_ = 0;  // numbers given
    std::map<std::int32_t, std::pair<std::uint64_t, std::string>> processes_;
    std::map<std::pair<std::int32_t, std::int32_t>, Thread> threads_;
    std::map<std::tuple<std::int32_t, std::int32_t, std::string>, HeldTracks> held_;
    std::map<std::pair<std::int32_t, std::int32_t>, std::vector<SpanLane>> span_lanes_;
    std::map<std::string, Counter> counters_;
    std::unordered_map<std::uint64_t, Counter *> by_track_;
    std::unordered_map<std::uint64_t, std::uint64_t> waiting_;  // blocked calls and their counters' tracks
    using Gone = std::pair<std::int64_t, std::uint64_t>;
    std::priority_queue<Gone, std::vector<Gone>, std::greater<>> gone_;  // when a call's process ended
    std::deque<Kept> kept_;
    std::unordered_map<std::uint64_t, Kept *> kept_by_entry_;
    std::unordered_map<std::uint64_t, std::uint64_t> let_through_;  // acquisitions, not yet written: by whose end
};

}  // namespace

std::unique_ptr<Exporter> make_perfetto(const Write &write) {
    return std::make_unique<Perfetto>(write);
}

}  // namespace planloop::analysis
