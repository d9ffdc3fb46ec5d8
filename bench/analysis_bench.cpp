// How many events a second the analysis takes in: from a source that costs next to nothing, and from a spool on disk
// as `planloop dev locks` reads it. The budget is 5 million on one core; the label says whether it was reached.
#include <benchmark/benchmark.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <time.h>

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "analysis/report.h"
#include "analysis/source/event_source.h"
#include "bench/synthetic_events.h"
#include "lockcore/wire/stream_writer.h"

namespace planloop::analysis {
namespace {

constexpr double kBudget = 5e6;

// Such events, written by the recorder's own writer, with stamps of a made-up time.
template <class Schedule>
class GeneratedSession {
  public:
    GeneratedSession(std::uint32_t threads, std::uint64_t events) : streams_(threads), pending_(threads) {
        if (mkdtemp(session_.directory.data()) == nullptr) return;
        std::filesystem::create_directories(session_.spool_dir());
        spool_ = std::make_unique<wire::SpoolWriter>();
        if (spool_->open(session_.spool_dir().c_str()) != 0) return;
        now_ = spool_->ticks();
        for (std::uint32_t thread = 0; thread < threads; ++thread) introduce(thread);
        Schedule schedule(threads);
        for (std::uint64_t i = 0; i < events; ++i) write(schedule.next());
        written_ = true;
        for (const auto &count : spool_->header().dropped) written_ = written_ && count.load() == 0;
    }
    ~GeneratedSession() {
        std::error_code ignored;
        std::filesystem::remove_all(session_.directory, ignored);
    }
    GeneratedSession(const GeneratedSession &) = delete;
    GeneratedSession &operator=(const GeneratedSession &) = delete;

    bool written() const { return written_; }
    const Session &session() const { return session_; }

  private:
    static wire::WriterIdentity who(std::uint32_t thread) {
        const auto pid = static_cast<std::int32_t>(1000 + thread);
        return {thread + 1, pid, pid};
    }
    template <class Body, std::size_t length>
    void introduce(std::uint32_t thread, wire::RecordKind kind, const Body &body, const char (&texts)[length]) {
        const wire::TextPiece pieces[] = {{&body, sizeof(body)}, {texts, length}};
        wire::Record *record = streams_[thread].claim_with_text(*spool_, who(thread), pieces, 2);
        if (record == nullptr) return;
        record->kind = kind;
        record->begin = ++now_;
        streams_[thread].publish(record, wire::State::complete);
    }
    void introduce(std::uint32_t thread) {
        wire::ProcessBody process{};
        process.pid = who(thread).pid;
        introduce(thread, wire::RecordKind::process, process,
                  "worker --its arguments\0/usr/bin/worker\0/tmp\0tr_20261122080000_abcdef\0worker");
        for (std::uint32_t lock = thread * kLocksOfAThread; lock < (thread + 1) * kLocksOfAThread; ++lock) {
            char path[] = "/tmp/lock-0000";  // one path for several files would be a finding
            for (std::size_t digit = sizeof(path) - 2, rest = lock; rest > 0; rest /= 10, --digit)
                path[digit] = static_cast<char>('0' + rest % 10);
            introduce(thread, wire::RecordKind::file, wire::FileBody{lock + 1, 0100644, 1, 1000 + lock, 0}, path);
        }
    }
    wire::Record *claim(const Step &step, wire::RecordKind kind) {
        wire::Record *record = streams_[step.thread].claim(*spool_, who(step.thread));
        if (record == nullptr) return nullptr;
        record->kind = kind;
        record->flags = wire::kBlocking;
        record->begin = now_;
        record->fd = static_cast<std::int32_t>(3 + step.lock % kLocksOfAThread);
        record->file = step.lock + 1;
        record->description = step.lock << 8 | (step.thread + 1);
        return record;
    }
    void write(const Step &step) {
        now_ += 200;
        wire::Record *&pending = pending_[step.thread];
        if (step.what == Step::What::acquire && pending != nullptr) {
            pending->end = now_;
            wire::StreamWriter::conclude(pending, wire::State::complete);
            return;
        }
        const bool request = step.what == Step::What::request;
        wire::Record *record = claim(step, request ? wire::RecordKind::acquire : wire::RecordKind::release);
        if (record == nullptr) return;
        if (request) {
            record->mode = wire::Mode::exclusive;
            pending = record;
        }
        streams_[step.thread].publish(record, request ? wire::State::pending : wire::State::complete);
    }

    Session session_{"bench", (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string()};
    std::unique_ptr<wire::SpoolWriter> spool_;
    std::vector<wire::StreamWriter> streams_;
    std::vector<wire::Record *> pending_;
    std::uint64_t now_ = 0;
    bool written_ = false;
};

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
