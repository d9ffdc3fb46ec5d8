// What the report page of a million lock events costs on top of the analysis: time, and bytes of the page. The budgets
// are 5 s and 30 MB for the whole.
#include <benchmark/benchmark.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "analysis/export/report_page.h"

namespace planloop::analysis {
namespace {

constexpr int kThreads = 8;
constexpr int kLocks = 6;

// Threads in turn: one asks, gets it after its forerunner, and lets go.
void add_calls(ReportPage &page, std::int64_t calls) {
    std::array<TimelineEntry, kThreads> entries;
    for (int thread = 0; thread < kThreads; ++thread) {
        TimelineEntry &entry = entries[static_cast<std::size_t>(thread)];
        entry.pid = entry.tid = 1000 + thread;
        entry.process = "worker";
        entry.command_line = "worker --number " + std::to_string(thread);
        entry.trace_id = "tr_20261122080000_" + std::to_string(100'000 + thread);
        entry.operation = "worker";
        entry.mode = wire::Mode::exclusive;
    }
    for (std::int64_t call = 0; call < calls; ++call) {
        TimelineEntry &entry = entries[static_cast<std::size_t>(call % kThreads)];
        entry.lock = "flock:fe:00:" + std::to_string(call % kLocks);
        entry.path = "/tmp/lock-" + std::to_string(call % kLocks);
        entry.lock_entry_id = std::to_string(1'000'000 + call);
        entry.blocked_by.clear();
        entry.kind = EventKind::lock_requested;
        entry.t_ns = call * 15'000;
        page.add(entry);
        entry.kind = EventKind::lock_acquired;
        entry.wait_ns = 20'000 + call % 977;
        entry.t_ns += entry.wait_ns;
        Blocker blocker;
        blocker.pid = blocker.tid = static_cast<std::int32_t>(1000 + (call + kThreads - 1) % kThreads);
        blocker.ns = entry.wait_ns;
        entry.blocked_by.push_back(blocker);
        page.add(entry);
        entry.kind = EventKind::lock_released;
        entry.hold_ns = 10'000 + call % 331;
        entry.t_ns += entry.hold_ns;
        entry.reason = "unlock";
        page.add(entry);
    }
}

void BM_ReportPage(benchmark::State &state) {
    const std::int64_t events = state.range(0);
    std::size_t bytes = 0;
    for (auto _ : state) {
        ReportPage page({});
        add_calls(page, events / 3);
        Report report;
        report.events = static_cast<std::uint64_t>(events);
        report.to_utc_ns = events * 5'000;
        bytes = 0;
        page.write(report, {}, [&](std::string_view part) {
            bytes += part.size();
            return true;
        });
    }
    state.counters["MB"] = static_cast<double>(bytes) / 1e6;
    state.SetLabel("budget: 5 s, 30 MB");
}
BENCHMARK(BM_ReportPage)->Arg(10'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace planloop::analysis
