// Runs the programs that side_by_side compares, each measurement in a process of its own, and looks into the spool for
// what was recorded meanwhile: a shim that recorded nothing must not look fast.
//
// Times are nanoseconds. Errors: one line that says which program failed and how. One thread.
#ifndef PLANLOOP_BENCH_MEASURE_H
#define PLANLOOP_BENCH_MEASURE_H

#include <cstdint>
#include <string>
#include <vector>

#include "lockcore/result.h"

namespace planloop::bench {

// `ring`: the shim as a flight recorder of one MiB, round which it goes several times. `strace_filtered`: with
// --seccomp-bpf.
enum class With : std::uint8_t { nothing, shim, ring, strace, strace_filtered };

// What the spool of a measurement says.
struct Recorded {
    bool spool = false;         // there is one
    std::uint64_t bytes = 0;    // claimed for records
    std::uint64_t dropped = 0;  // events
};

struct Measured {
    double own_ns = 0, whole_ns = 0;  // of one iteration, as lock_workload tells them
    Recorded recorded;
};

class Bench {
  public:
    // `folder` is new and empty; what is measured runs in it.
    Bench(std::string folder, std::string workload, std::string shim)
        : folder_(std::move(folder)), workload_(std::move(workload)), shim_(std::move(shim)) {}

    Result<Measured> run(const std::string &name, long iterations, With with) const;

    // Starts a program that takes no lock `count` times bare and as often with the shim, in turn, and gives the median
    // of each: a start takes long enough for the machine to change its mind in between.
    struct Starts {
        double bare_ns = 0;
        double shim_ns = 0;
    };
    Result<Starts> start_up(int count) const;

  private:
    std::vector<std::string> environment(With with) const;
    Recorded take_spool() const;

    std::string folder_, workload_, shim_;
};

double median(std::vector<double> values);
bool strace_works();

}  // namespace planloop::bench

#endif
