// What one record costs the traced program, step by step, on a real spool.
#include <benchmark/benchmark.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <filesystem>
#include <memory>
#include <string>

#include "lockcore/wire/stream_writer.h"

namespace planloop::wire {
namespace {

// A spool in a folder of its own. A SpoolWriter never unmaps, so what it mapped stays until the program ends.
class TempSpool {
  public:
    TempSpool() {
        if (mkdtemp(folder_.data()) != nullptr) opened_ = writer_->open(folder_.c_str()) == 0;
    }
    ~TempSpool() {
        std::error_code ignored;
        std::filesystem::remove_all(folder_, ignored);
    }
    TempSpool(const TempSpool &) = delete;
    TempSpool &operator=(const TempSpool &) = delete;

    // False, and the benchmark is told so, when there is no spool.
    bool usable(benchmark::State &state) const {
        if (!opened_) state.SkipWithError("no spool can be made in the temporary folder");
        return opened_;
    }
    SpoolWriter &writer() { return *writer_; }
    const std::string &folder() const { return folder_; }
    std::uint64_t dropped() const {
        std::uint64_t sum = 0;
        for (const auto &count : writer_->header().dropped) sum += count.load();
        return sum;
    }

  private:
    std::string folder_ = (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string();
    std::unique_ptr<SpoolWriter> writer_ = std::make_unique<SpoolWriter>();
    bool opened_ = false;
};

constexpr WriterIdentity kWho{1, 100, 100};
constexpr benchmark::IterationCount kRecords = 1'000'000;  // 64 MB: within the spool's limit, whatever the machine

void fill(Record &record, SpoolWriter &spool) {
    record.kind = RecordKind::acquire;
    record.mode = Mode::exclusive;
    record.flags = kBlocking;
    record.begin = spool.ticks();
    record.fd = 3;
    record.file = record.description = 1;
}

void ticks(benchmark::State &state) {
    const ClockKind clock = detect_clock();
    while (state.KeepRunning()) benchmark::DoNotOptimize(read_ticks(clock));
    state.SetLabel(clock == ClockKind::tsc ? "time-stamp counter" : "CLOCK_MONOTONIC");
}
BENCHMARK(ticks);

void monotonic_clock(benchmark::State &state) {
    while (state.KeepRunning()) benchmark::DoNotOptimize(clock_ns(CLOCK_MONOTONIC));
}
BENCHMARK(monotonic_clock);

void calibration(benchmark::State &state) {
    const ClockKind clock = detect_clock();
    while (state.KeepRunning()) benchmark::DoNotOptimize(calibrate(clock));
}
BENCHMARK(calibration);

// All that an acquisition and its release write, chunks and disk space included; no lock is taken.
void record_pair(benchmark::State &state) {
    TempSpool spool;
    if (!spool.usable(state)) return;
    StreamWriter stream;
    while (state.KeepRunning()) {
        Record *acquire = stream.claim(spool.writer(), kWho);
        if (acquire == nullptr) break;
        fill(*acquire, spool.writer());
        stream.publish(acquire, State::pending);
        acquire->end = spool.writer().ticks();
        StreamWriter::conclude(acquire, State::complete);
        Record *release = stream.claim(spool.writer(), kWho);
        if (release == nullptr) break;
        fill(*release, spool.writer());
        release->kind = RecordKind::release;
        stream.publish(release, State::complete);
    }
    state.SetItemsProcessed(2 * state.iterations());
    if (spool.dropped() != 0) state.SkipWithError("records were dropped");
}
BENCHMARK(record_pair)->Iterations(kRecords / 2);

// A record with a path behind it: the first sight of a file.
void record_with_text(benchmark::State &state) {
    TempSpool spool;
    if (!spool.usable(state)) return;
    StreamWriter stream;
    const FileBody body{1, 0100644, 0xfe01, 1234, 1};
    const std::string path = "/var/lib/some/where/of/usual/length.lock";
    const TextPiece pieces[] = {{&body, sizeof(body)}, {path.data(), path.size() + 1}};
    while (state.KeepRunning()) {
        Record *record = stream.claim_with_text(spool.writer(), kWho, pieces, 2);
        if (record == nullptr) break;
        record->kind = RecordKind::file;
        record->begin = spool.writer().ticks();
        stream.publish(record, State::complete);
    }
    state.SetItemsProcessed(state.iterations());
    if (spool.dropped() != 0) state.SkipWithError("records were dropped");
}
BENCHMARK(record_with_text)->Iterations(kRecords / 8);

// A program on a full disk, or past the session's size: what it pays for each call that is not recorded.
void record_dropped(benchmark::State &state) {
    TempSpool spool;
    if (!spool.usable(state)) return;
    spool.writer().header().limit_bytes = kPageBytes;
    StreamWriter stream;
    while (state.KeepRunning()) benchmark::DoNotOptimize(stream.claim(spool.writer(), kWho));
    state.SetItemsProcessed(state.iterations());
}
BENCHMARK(record_dropped);

// What a thread's first record costs: a page of the spool.
void first_record_of_a_thread(benchmark::State &state) {
    TempSpool spool;
    if (!spool.usable(state)) return;
    while (state.KeepRunning()) {
        StreamWriter stream;
        Record *record = stream.claim(spool.writer(), kWho);
        if (record == nullptr) break;
        fill(*record, spool.writer());
        stream.publish(record, State::complete);
    }
    if (spool.dropped() != 0) state.SkipWithError("records were dropped");
}
BENCHMARK(first_record_of_a_thread)->Iterations(20'000);

// A process joins a session that is being recorded.
void open_spool(benchmark::State &state) {
    TempSpool spool;
    if (!spool.usable(state)) return;
    while (state.KeepRunning()) {
        state.PauseTiming();
        auto writer = std::make_unique<SpoolWriter>();
        state.ResumeTiming();
        if (writer->open(spool.folder().c_str()) != 0) {
            state.SkipWithError("the spool cannot be opened");
            break;
        }
        state.PauseTiming();
        munmap(&writer->header(), kPageBytes);
        writer.reset();
        state.ResumeTiming();
    }
}
BENCHMARK(open_spool)->Iterations(5'000);

// The first process of a session makes the spool.
void make_spool(benchmark::State &state) {
    while (state.KeepRunning()) {
        TempSpool spool;
        if (!spool.usable(state)) break;
        state.PauseTiming();
        munmap(&spool.writer().header(), kPageBytes);
        state.ResumeTiming();
    }
    state.SetLabel("its folder and their removal included");
}
BENCHMARK(make_spool)->Iterations(1'000);

}  // namespace
}  // namespace planloop::wire
