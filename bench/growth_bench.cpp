// How time and memory of `planloop dev locks --summary` grow with the recording: from 10^5 to 10^8 events, as a process
// of its own, with its processor time and the peak of its resident memory. The spool of the largest takes 4.3 GB.
//
// `uncontended`: eight threads at locks of their own; `contended`: they all queue for one.
#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <string>

#include "bench/generated_session.h"

namespace planloop::analysis {
namespace {

constexpr std::uint32_t kThreads = 8;
constexpr double kBudget = 5e6, kMostMegabytes = 256;

// The program of the build that this one is of.
std::string planloop_path() {
    std::error_code error;
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
    return (self.parent_path().parent_path() / "cli" / "planloop").string();
}

bool summarise(const Session &session, rusage &usage) {
    const std::string program = planloop_path();
    const pid_t child = fork();
    if (child == 0) {
        const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        dup2(nowhere, STDOUT_FILENO);
        const std::string home = std::filesystem::path(session.directory).parent_path().parent_path().string();
        setenv("PLANLOOP_HOME", home.c_str(), 1);
        execl(program.c_str(), program.c_str(), "dev", "locks", "--summary", "--session", session.id.c_str(), nullptr);
        _exit(127);
    }
    int status = 0;
    return child > 0 && wait4(child, &status, 0, &usage) == child && status == 0;
}

double seconds(const timeval &time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

template <class Schedule>
void growth(benchmark::State &state) {
    const auto events = static_cast<std::uint64_t>(state.range(0));
    constexpr std::uint64_t kLimitBytes = std::uint64_t{16} << 30;
    GeneratedSession<Schedule> generated(kThreads, events, kLimitBytes);
    if (!generated.written()) return state.SkipWithError("no such spool can be written in the temporary folder");
    generated.close();
    rusage usage{};
    while (state.KeepRunning()) {
        if (!summarise(generated.session(), usage)) return state.SkipWithError("planloop dev locks failed");
        state.SetIterationTime(seconds(usage.ru_utime) + seconds(usage.ru_stime));
    }
    const double taken = seconds(usage.ru_utime) + seconds(usage.ru_stime);
    const double megabytes = static_cast<double>(usage.ru_maxrss) / 1024;
    state.SetItemsProcessed(state.range(0));
    state.counters["rss_MB"] = megabytes;
    const bool met = static_cast<double>(events) >= kBudget * taken && megabytes <= kMostMegabytes;
    state.SetLabel(met ? "5M/s, 256 MB: met" : "5M/s, 256 MB: missed");
}
BENCHMARK(growth<Uncontended>)
    ->ArgName("events")
    ->RangeMultiplier(10)
    ->Range(100'000, 100'000'000)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(growth<Contended>)
    ->ArgName("events")
    ->Arg(10'000'000)
    ->Iterations(1)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace planloop::analysis
