// How many events a second the analysis takes in: from a source that costs next to nothing, and from a spool on disk
// as `planloop dev locks` reads it. The budget is 5 million on one core; the label says whether it was reached.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <time.h>

#include "analysis/report.h"
#include "analysis/source/event_source.h"
#include "bench/generated_session.h"
#include "bench/synthetic_events.h"

namespace planloop::analysis {
namespace {

constexpr double kBudget = 5e6;

constexpr std::uint64_t kEvents = 1'500'000;

double processor_seconds() {
    timespec now{};
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

// Counts events and seconds of the analyses alone, and says in the end what came out.
class Meter {
  public:
    explicit Meter(benchmark::State &state) : state_(state) {}
    void run(EventSource &source, const TimelineSink &sink) {
        AnalysisOptions options;
        options.session = "bench";
        const double begin = processor_seconds();
        const Report report = analyse(source, options, sink);
        seconds_ += processor_seconds() - begin;
        events_ += static_cast<double>(report.events);
        if (report.events < kEvents - kEvents / 100 || report.dropped != 0) {
            state_.SkipWithError(
                fmt::format("{} events of {}, {} dropped", report.events, kEvents, report.dropped).c_str());
        }
    }
    ~Meter() {
        state_.SetItemsProcessed(static_cast<std::int64_t>(events_));
        state_.SetLabel(events_ >= kBudget * seconds_ ? "5M/s: met" : "5M/s: missed");
    }
    Meter(const Meter &) = delete;
    Meter &operator=(const Meter &) = delete;

  private:
    benchmark::State &state_;
    double seconds_ = 0, events_ = 0;
};

template <class Schedule>
void synthetic(benchmark::State &state) {
    Meter meter(state);
    while (state.KeepRunning()) {
        SyntheticSource<Schedule> source(static_cast<std::uint32_t>(state.range(0)), kEvents);
        meter.run(source, {});
    }
}
BENCHMARK(synthetic<Uncontended>)->ArgName("threads")->Arg(1)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);
BENCHMARK(synthetic<Contended>)->ArgName("threads")->Arg(2)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

// With a timeline that somebody looks at; no budget is set for that, since printing costs more.
void synthetic_with_timeline(benchmark::State &state) {
    std::uint64_t entries = 0;
    while (state.KeepRunning()) {
        SyntheticSource<Uncontended> source(8, kEvents);
        const Report report =
            analyse(source, AnalysisOptions{}, [&](const TimelineEntry &entry) { entries += entry.path.size(); });
        benchmark::DoNotOptimize(report.events);
    }
    benchmark::DoNotOptimize(entries);
    state.SetItemsProcessed(state.iterations() * static_cast<std::int64_t>(kEvents));
}
BENCHMARK(synthetic_with_timeline)->Unit(benchmark::kMillisecond);

template <class Schedule>
void from_spool(benchmark::State &state) {
    const GeneratedSession<Schedule> generated(static_cast<std::uint32_t>(state.range(0)), kEvents);
    if (!generated.written()) {
        state.SkipWithError("no spool can be written in the temporary folder");
        return;
    }
    Meter meter(state);
    while (state.KeepRunning()) {
        auto source = open_session(generated.session());
        if (!source) {
            state.SkipWithError(source.error().message.c_str());
            return;
        }
        meter.run(**source, {});
    }
}
BENCHMARK(from_spool<Uncontended>)->ArgName("threads")->Arg(1)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);
BENCHMARK(from_spool<Contended>)->ArgName("threads")->Arg(2)->Arg(8)->Arg(64)->Unit(benchmark::kMillisecond);

// Reading and merging without any conclusion: what part of the above is the reader's.
void read_spool_only(benchmark::State &state) {
    const GeneratedSession<Uncontended> generated(8, kEvents);
    std::int64_t events = 0;
    while (state.KeepRunning()) {
        auto source = open_session(generated.session());
        if (!source) {
            state.SkipWithError(source.error().message.c_str());
            return;
        }
        for (Event event; (*source)->next(event);) ++events;
    }
    state.SetItemsProcessed(events);
}
BENCHMARK(read_spool_only)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace planloop::analysis
