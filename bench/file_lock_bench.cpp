// What a FileLock costs more than the lock it stands on, uncontended: raw Boost, FileLock without and with recording,
// and traced<std::mutex> beside a bare std::mutex; once more while an operation is recorded (span.h). The budget is a
// ratio: FileLock, recording, 1.20 times raw Boost.

#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <boost/interprocess/sync/file_lock.hpp>
#include <fstream>
#include <mutex>
#include <shared_mutex>
#include <string>

#include "lockcore/file_lock.h"
#include "lockcore/recorder.h"
#include "lockcore/span.h"
#include "lockcore/traced_lock.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

// A folder of its own, and in it the session that everything is recorded into.
const std::string &folder() {
    static const test::TempFolder made;
    static const bool told = ::setenv("PLANLOOP_HOME", made.path().c_str(), 1) == 0;  // NOLINT(concurrency-mt-unsafe)
    static_cast<void>(told);
    return made.path();
}

void start_recording() {
    static const bool started = [] {
        const std::string &home = folder();
        const auto session = create_session("bench");
        if (!session || !record_into(*session)) std::fprintf(stderr, "nothing is recorded in %s\n", home.c_str());
        return true;
    }();
    static_cast<void>(started);
}

template <class Lock>
void pairs(benchmark::State &state, Lock &lock) {
    for (auto _ : state) {
        lock.lock();
        lock.unlock();
    }
}

void raw_boost_file_lock(benchmark::State &state) {
    const std::string path = folder() + "/raw";
    std::ofstream(path).put('x');
    boost::interprocess::file_lock lock(path.c_str());
    pairs(state, lock);
}

void file_lock_not_recorded(benchmark::State &state) {
    FileLock lock(folder() + "/silent", FileLock::Recorded::no);
    pairs(state, lock);
}

void file_lock_recorded(benchmark::State &state) {
    start_recording();
    FileLock lock(folder() + "/recorded");
    pairs(state, lock);
}

void file_lock_shared_recorded(benchmark::State &state) {
    start_recording();
    FileLock lock(folder() + "/shared");
    for (auto _ : state) {
        lock.lock_shared();
        lock.unlock_shared();
    }
}

void file_lock_in_an_operation(benchmark::State &state) {
    start_recording();
    const auto session = find_session("bench");
    start_operation_trace("bench");
    OperationRecording operation(*session);
    FileLock lock(folder() + "/in_an_operation");
    pairs(state, lock);
}

void bare_mutex(benchmark::State &state) {
    std::mutex lock;
    pairs(state, lock);
}

void traced_mutex_recorded(benchmark::State &state) {
    start_recording();
    traced<std::mutex> lock{"bench"};
    pairs(state, lock);
}

// As many as a busy program makes in a minute: a spool that fills its gigabyte in one second measures the disk.
constexpr std::int64_t kPairs = 100'000;

BENCHMARK(raw_boost_file_lock)->Iterations(kPairs);
BENCHMARK(file_lock_not_recorded)->Iterations(kPairs);
BENCHMARK(file_lock_recorded)->Iterations(kPairs);
BENCHMARK(file_lock_shared_recorded)->Iterations(kPairs);
BENCHMARK(file_lock_in_an_operation)->Iterations(kPairs);
BENCHMARK(bare_mutex)->Iterations(kPairs);
BENCHMARK(traced_mutex_recorded)->Iterations(kPairs);

}  // namespace
}  // namespace planloop
