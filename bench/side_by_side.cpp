// What tracing costs: the same program bare, with the shim, and under strace, in one run, in turn, several times over.
//
//     side_by_side --shim PATH [--workload PATH] [--rounds N] [--only TEXT] [--json FILE]
//
// The machine's speed wanders by more than the shim costs, so only ratios count, and each is taken between two
// neighbours in time; other programs' turns on the processor are not counted (lock_workload.cpp). A row shows the
// median of the rounds' ratios, and the least and the greatest. A budget that is missed is said to be; the exit status
// is 0 all the same, 1 when something could not be measured, 2 for bad usage.
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "bench/measure.h"

namespace planloop::bench {
namespace {

enum class Expect : std::uint8_t { records, no_records };

struct Row {
    const char *workload;
    const char *what;
    double budget;  // of the ratio; 0: none
    long iterations;
    With with = With::shim;
    Expect expect = Expect::records;
};

constexpr double kPairBudget = 1.30;
constexpr double kRingBudget = 1.15;
constexpr double kSharedCloseBudget = 1.10;
constexpr double kStartBudget = 1.10;
constexpr double kDescriptorBudget = 1.05;
constexpr const char *kStartUp = "start_up";

constexpr Row kRows[] = {
    {"flock_pair", "flock: lock, unlock", kPairBudget, 100'000},
    {"posix_pair", "POSIX: lock, unlock", kPairBudget, 100'000},
    {"ofd_pair", "OFD: lock, unlock", kPairBudget, 100'000},
    {"flock_held", "flock: lock, 1 us of work, unlock", kPairBudget, 40'000},
    {"posix_held", "POSIX: lock, 1 us of work, unlock", kPairBudget, 40'000},
    {"ofd_held", "OFD: lock, 1 us of work, unlock", kPairBudget, 40'000},
    {"flock_apart", "flock: lock, unlock, 1 us of work", kPairBudget, 40'000},
    {"posix_apart", "POSIX: lock, unlock, 1 us of work", kPairBudget, 40'000},
    {"ofd_apart", "OFD: lock, unlock, 1 us of work", kPairBudget, 40'000},
    {"flock_cycle", "flock: open, lock, unlock, close", kPairBudget, 40'000},
    {"posix_cycle", "POSIX: open, lock, unlock, close", kPairBudget, 40'000},
    {"ofd_cycle", "OFD: open, lock, unlock, close", kPairBudget, 40'000},
    {kStartUp, "start of a process that takes no lock", kStartBudget, 150, With::shim, Expect::no_records},
    {"close", "close, no lock about", kDescriptorBudget, 200'000, With::shim, Expect::no_records},
    {"dup", "dup, no lock about", kDescriptorBudget, 200'000, With::shim, Expect::no_records},
    {"dup2", "dup2, no lock about", kDescriptorBudget, 200'000, With::shim, Expect::no_records},
    {"fork", "fork, _exit, waitpid, no lock about", kDescriptorBudget, 1'600, With::shim, Expect::no_records},
    {"close_shared", "close, while a lock is shared", kSharedCloseBudget, 200'000},
    {"flock_pair", "flock: lock, unlock; flight recorder", kRingBudget, 100'000, With::ring},
    {"posix_pair", "POSIX: lock, unlock; flight recorder", kRingBudget, 100'000, With::ring},
    {"ofd_pair", "OFD: lock, unlock; flight recorder", kRingBudget, 100'000, With::ring},
    {"flock_threads", "flock pairs, 4 threads, a file each", kPairBudget, 130'000},
    {"flock_processes", "flock pairs, 4 processes, a file each", kPairBudget, 130'000},
    {"hand_over", "flock handed over, 2 processes, 1 us held", 0, 16'000},
    {"sqlite", "sqlite3, an insertion", 0, 6'000},
    {"flock_pair", "flock pair, strace -f --seccomp-bpf", 0, 1'600, With::strace_filtered, Expect::no_records},
    {"flock_pair", "flock pair under strace -f", 0, 1'600, With::strace, Expect::no_records},
    {"posix_pair", "POSIX pair under strace -f", 0, 1'600, With::strace, Expect::no_records},
};

struct Options {
    std::string shim, workload, only, json;
    int rounds = 9;
};

struct Samples {
    std::vector<double> bare_ns, other_ns, ratio;
    std::uint64_t dropped = 0;
    std::string trouble;  // why there are none, or why they do not count
};

void take(Samples &samples, double bare_ns, double other_ns) {
    samples.bare_ns.push_back(bare_ns);
    samples.other_ns.push_back(other_ns);
    samples.ratio.push_back(other_ns / bare_ns);
}

Result<void> measure(const Bench &bench, const Row &row, bool bare_first, Samples &samples) {
    if (std::string_view(row.workload) == kStartUp) {
        const auto starts = bench.start_up(static_cast<int>(row.iterations));
        if (!starts) return starts.error();
        take(samples, starts->bare_ns, starts->shim_ns);
        return {};
    }
    Measured bare, other;
    for (int i = 0; i < 2; ++i) {
        const bool bare_now = (i == 0) == bare_first;
        const auto measured = bench.run(row.workload, row.iterations, bare_now ? With::nothing : row.with);
        if (!measured) return measured.error();
        (bare_now ? bare : other) = *measured;
    }
    if (row.expect == Expect::records && other.recorded.bytes == 0) return Error{"the shim recorded nothing"};
    samples.dropped += other.recorded.dropped;
    // A program under strace sleeps at each call; its own time says nothing.
    if (row.with == With::strace || row.with == With::strace_filtered) {
        take(samples, bare.whole_ns, other.whole_ns);
    } else {
        take(samples, bare.own_ns, other.own_ns);
    }
    return {};
}

const char *verdict(const Row &row, const Samples &samples) {
    if (row.budget == 0) return "";
    return median(samples.ratio) <= row.budget ? "met" : "missed";
}

const char *name_of(With with) {
    switch (with) {
        case With::nothing:
            return "nothing";
        case With::ring:
            return "shim, ring";
        case With::strace:
            return "strace";
        case With::strace_filtered:
            return "strace --seccomp-bpf";
        case With::shim:
            break;
    }
    return "shim";
}

std::string quoted(const std::string &text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        out += static_cast<unsigned char>(c) < 0x20 ? ' ' : c;
    }
    return out + '"';
}

std::string cpu_model() {
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with("model name")) return line.substr(std::min(line.find(": ") + 2, line.size()));
    }
    return "unknown processor";
}

struct Machine {
    std::string processor = cpu_model();
    unsigned processors = std::thread::hardware_concurrency();
    std::string kernel, compiler = "g++ " __VERSION__;
    std::string date = fmt::format("{:%Y-%m-%d}", fmt::gmtime(std::time(nullptr)));
    double load = 0;

    Machine() {
        utsname name{};
        if (uname(&name) == 0) kernel = std::string(name.sysname) + " " + name.release + " " + name.machine;
        static_cast<void>(getloadavg(&load, 1));
    }
};

void print_table(const std::vector<Samples> &all, const Machine &machine, int rounds) {
    fmt::print("{}, {} processors, {}, {}, {}, load {:.1f} at the start\n", machine.processor, machine.processors,
               machine.kernel, machine.compiler, machine.date, machine.load);
    fmt::print("ratio of neighbours in time, median of {} rounds (least to greatest)\n\n", rounds);
    fmt::print("{:<42} {:>10} {:>10}  {:>7}  {:<17} {:>6}\n", "", "bare ns", "traced ns", "ratio", "", "budget");
    int missed = 0;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const Row &row = kRows[i];
        const Samples &samples = all[i];
        if (!samples.trouble.empty()) fmt::print("{:<42} not measured: {}\n", row.what, samples.trouble);
        if (samples.ratio.empty()) continue;
        const auto [least, greatest] = std::minmax_element(samples.ratio.begin(), samples.ratio.end());
        const std::string spread = fmt::format("({:.2f} to {:.2f})", *least, *greatest);
        const std::string budget = row.budget != 0 ? fmt::format("{:.2f}", row.budget) : "-";
        fmt::print("{:<38} {:>10.1f} {:>10.1f}  {:>7.3f}  {:<17} {:>6}  {}\n", row.what, median(samples.bare_ns),
                   median(samples.other_ns), median(samples.ratio), spread, budget, verdict(row, samples));
        if (samples.dropped != 0) fmt::print("    {} events were lost: that part was not paid for\n", samples.dropped);
        if (row.budget != 0 && median(samples.ratio) > row.budget) ++missed;
    }
    if (missed != 0) {
        fmt::print("\n{} {} missed.\n", missed, missed == 1 ? "budget was" : "budgets were");
    } else {
        fmt::print("\nAll budgets that were measured are met.\n");
    }
}

bool write_json(const std::string &path, const std::vector<Samples> &all, const Machine &machine, int rounds) {
    std::string rows;
    for (std::size_t i = 0; i < all.size(); ++i) {
        const Row &row = kRows[i];
        const Samples &samples = all[i];
        if (samples.ratio.empty()) continue;
        const auto [least, greatest] = std::minmax_element(samples.ratio.begin(), samples.ratio.end());
        rows += fmt::format(
            "{}\n  {{\"name\":{},\"what\":{},\"traced_by\":\"{}\",\"bare_ns\":{:.1f},\"traced_ns\":{:.1f},"
            "\"ratio\":{:.4f},\"least\":{:.4f},\"greatest\":{:.4f},\"budget\":{},\"verdict\":{},\"dropped\":{}}}",
            rows.empty() ? "" : ",", quoted(row.workload), quoted(row.what), name_of(row.with), median(samples.bare_ns),
            median(samples.other_ns), median(samples.ratio), *least, *greatest,
            row.budget != 0 ? fmt::format("{:.2f}", row.budget) : "null",
            row.budget != 0 ? quoted(verdict(row, samples)) : "null", samples.dropped);
    }
    std::ofstream file(path);
    file << fmt::format(
        "{{\"machine\":{{\"processor\":{},\"processors\":{},\"kernel\":{},\"compiler\":{},\"date\":{},\"load\":{:.2f}}}"
        ","
        "\"rounds\":{},\"rows\":[{}\n]}}\n",
        quoted(machine.processor), machine.processors, quoted(machine.kernel), quoted(machine.compiler),
        quoted(machine.date), machine.load, rounds, rows);
    return static_cast<bool>(file.flush());
}

bool parse(int argc, char **argv, Options &options) {
    options.workload = (std::filesystem::path(argv[0]).parent_path() / "lock_workload").string();
    for (int i = 1; i + 1 < argc; i += 2) {
        const std::string_view name = argv[i];
        const char *value = argv[i + 1];
        if (name == "--shim") {
            options.shim = value;
        } else if (name == "--workload") {
            options.workload = value;
        } else if (name == "--only") {
            options.only = value;
        } else if (name == "--json") {
            options.json = value;
        } else if (name == "--rounds") {
            options.rounds = std::atoi(value);
        } else {
            return false;
        }
    }
    return argc % 2 == 1 && !options.shim.empty() && options.rounds > 0;
}

bool chosen(const Row &row, const Options &options) {
    return options.only.empty() || std::string_view(row.workload).find(options.only) != std::string_view::npos;
}

int run(Options options) {
    for (std::string *path : {&options.shim, &options.workload}) {
        std::error_code error;
        *path = std::filesystem::canonical(*path, error).string();
        if (error) {
            fmt::print(stderr, "side_by_side: the shim or lock_workload is not there: {}\n", error.message());
            return 2;
        }
    }
    std::string folder = (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string();
    if (mkdtemp(folder.data()) == nullptr) {
        fmt::print(stderr, "side_by_side: no folder can be made: {}\n", folder);
        return 1;
    }
    const Machine machine;
    const Bench bench(folder, options.workload, options.shim);
    const bool strace = strace_works();
    std::vector<Samples> all(std::size(kRows));
    int status = 0;
    for (int round = 0; round < options.rounds; ++round) {
        for (std::size_t i = 0; i < all.size(); ++i) {
            const Row &row = kRows[i];
            if (!chosen(row, options) || !all[i].trouble.empty()) continue;
            const bool by_strace = row.with == With::strace || row.with == With::strace_filtered;
            if (by_strace && !strace) {
                all[i].trouble = "strace is not installed, or may not trace here";
                continue;
            }
            if (auto done = measure(bench, row, round % 2 == 0, all[i]); !done) {
                all[i].trouble = done.error().message;
                status = 1;
            }
        }
    }
    std::error_code ignored;
    std::filesystem::remove_all(folder, ignored);
    print_table(all, machine, options.rounds);
    if (!options.json.empty() && !write_json(options.json, all, machine, options.rounds)) {
        fmt::print(stderr, "side_by_side: {}: cannot be written\n", options.json);
        return 1;
    }
    return status;
}

}  // namespace
}  // namespace planloop::bench

int main(int argc, char **argv) {
    planloop::bench::Options options;
    if (!planloop::bench::parse(argc, argv, options)) {
        fmt::print(stderr,
                   "usage: side_by_side --shim PATH [--workload PATH] [--rounds N] [--only TEXT] [--json FILE]\n");
        return 2;
    }
    return planloop::bench::run(std::move(options));
}
