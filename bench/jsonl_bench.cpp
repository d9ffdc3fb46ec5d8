// planloop.jsonl: how fast lock lines are made, and read back as events. Budgets: 200 MB/s written, 500 MB/s read; the
// label says whether they were reached. The lines that are read are those that only the log has: each is taken apart,
// put into the order of its time and becomes an event.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "analysis/source/event_source.h"
#include "lockcore/jsonl.h"

namespace planloop {
namespace {

double cpu_seconds() {
    timespec now{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

void add_line(std::string &out, std::int64_t number, std::string_view source) {
    constexpr std::string_view kKinds[] = {"lock_requested", "lock_acquired", "lock_released"};
    const std::string entry = fmt::format("{:016x}", number / 3);
    LockLine line;
    line.utc_ns = 1'800'000'000'000'000'000 + number * 700;
    line.event = kKinds[number % 3];
    line.trace_id = "tr_20270115080000_abcdef";
    line.operation = line.process = "worker";
    line.lock_entry_id = entry;
    if (number % 3 == 1) line.wait_ns = 1234;
    if (number % 3 == 2) line.hold_ns = 567'890;
    if (number % 3 == 2) line.reason = "unlock";
    line.session_id = "bench";
    line.pid = line.tid = static_cast<std::int32_t>(1000 + number / 3 % 8);
    line.source = source;
    line.lock_id = "flock:fe:01:1234";
    line.family = "flock";
    line.path = "/var/lib/something/lock";
    line.mode = "exclusive";
    if (source == "preload") line.spool = "locks-v2-00000000.spool";
    append_lock_line(out, line);
}

void judge(benchmark::State &state, double bytes, double seconds, double budget) {
    const double rate = bytes / seconds / 1e6;
    state.counters["MB/s"] = rate;
    if (budget > 0) state.SetLabel(fmt::format("{:.0f} MB/s: {}", budget, rate >= budget ? "met" : "missed"));
}

void write_lines(benchmark::State &state) {
    std::string out;
    double bytes = 0;
    const double begun = cpu_seconds();
    for (auto _ : state) {
        out.clear();
        for (std::int64_t i = 0; i < 3000; ++i) add_line(out, i, "preload");
        bytes += static_cast<double>(out.size());
        benchmark::DoNotOptimize(out.data());
    }
    judge(state, bytes, cpu_seconds() - begun, 200);
}
BENCHMARK(write_lines);

void read_lines(benchmark::State &state, std::string_view source, double budget) {
    std::string folder = (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) {
        state.SkipWithError("no temporary folder");
        return;
    }
    const Session session{"bench", folder};
    std::filesystem::create_directories(session.spool_dir());
    std::string text;
    for (std::int64_t i = 0; i < 150'000; ++i) add_line(text, i, source);
    std::ofstream(session.log_file()) << text;
    std::uint64_t events = 0;
    const double begun = cpu_seconds();
    for (auto _ : state) {
        auto events_of = analysis::open_session(session);
        if (!events_of) {
            state.SkipWithError(events_of.error().message.c_str());
            break;
        }
        for (analysis::Event event; (*events_of)->next(event);) ++events;
    }
    const double seconds = cpu_seconds() - begun;
    state.SetItemsProcessed(static_cast<std::int64_t>(events));
    judge(state, static_cast<double>(text.size()) * static_cast<double>(state.iterations()), seconds, budget);
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
}
BENCHMARK_CAPTURE(read_lines, taken_apart, "liblockcore", 500)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace planloop
