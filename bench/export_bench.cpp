// What an export costs: time and bytes for each lock event, and how memory grows with their number. Each run is in a
// process of its own, whose peak of resident memory is `rss_MB`: it must be the same for ten times as many events.
#include <benchmark/benchmark.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <new>
#include <string>
#include <string_view>

#include "analysis/export/format.h"
#include "bench/synthetic_events.h"

namespace planloop::analysis {
namespace {

struct Figures {
    std::atomic<std::uint64_t> bytes, ns;
};

// Eight threads that queue for one lock: each acquisition was waited for and has somebody to blame.
void run_in_child(const Format &format, std::uint64_t events, Figures &figures) {
    SyntheticSource<Contended> source(8, events);
    std::uint64_t bytes = 0;
    const auto begin = std::chrono::steady_clock::now();
    const Report report =
        export_session(source, {}, format, {}, [&](std::string_view piece) { bytes += piece.size(); });
    const auto end = std::chrono::steady_clock::now();
    figures.bytes = report.events < events - events / 100 ? 0 : bytes;
    figures.ns = static_cast<std::uint64_t>(std::chrono::nanoseconds(end - begin).count());
}

void exported(benchmark::State &state) {
    const Format &format = formats()[static_cast<std::size_t>(state.range(0))];
    const auto events = static_cast<std::uint64_t>(state.range(1));
    void *shared = mmap(nullptr, sizeof(Figures), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return state.SkipWithError("no memory");
    Figures &figures = *new (shared) Figures{};
    double rss_mb = 0;
    while (state.KeepRunning()) {
        const pid_t child = fork();
        if (child == 0) {
            run_in_child(format, events, figures);
            _exit(0);
        }
        rusage usage{};
        int status = 0;
        if (child < 0 || wait4(child, &status, 0, &usage) != child || status != 0 || figures.bytes == 0) {
            state.SkipWithError("the export failed");
            break;
        }
        state.SetIterationTime(static_cast<double>(figures.ns) / 1e9);
        rss_mb = static_cast<double>(usage.ru_maxrss) / 1024;
    }
    state.SetItemsProcessed(state.iterations() * state.range(1));
    state.SetLabel(std::string(format.name));
    state.counters["rss_MB"] = rss_mb;
    state.counters["bytes_per_event"] = static_cast<double>(figures.bytes) / static_cast<double>(events);
    munmap(shared, sizeof(Figures));
}

void every_format(benchmark::internal::Benchmark *bench) {
    for (std::int64_t format = 0; format < static_cast<std::int64_t>(formats().size()); ++format)
        for (const std::int64_t events : {300'000, 3'000'000}) bench->Args({format, events});
}
BENCHMARK(exported)
    ->Apply(every_format)
    ->ArgNames({"format", "events"})
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace planloop::analysis
