// How many wait in a queue, over time, in bounded memory: 128 steps of equal length, which doubles whenever the
// recording outgrows them. It starts at a millisecond.
//
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_QUEUE_METER_H
#define PLANLOOP_ANALYSIS_QUEUE_METER_H

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "analysis/report.h"

namespace planloop::analysis {

class QueueMeter {
  public:
    static constexpr std::size_t kMostSteps = 128;

    // One more or one less from now on. Times never go back.
    void change(std::int64_t t_ns, int by) {
        if (steps_.empty()) begin_at(t_ns);
        advance(t_ns);
        waiting_ += static_cast<std::uint32_t>(by);
        max_ = std::max(max_, waiting_);
        steps_.back().max = std::max(steps_.back().max, waiting_);
    }
    std::uint32_t waiting() const { return waiting_; }
    QueueDepth depth(std::int64_t from_ns, std::int64_t to_ns) const;

  private:
    struct Step {
        double area_ns = 0;  // waiters times nanoseconds
        std::uint32_t max = 0;
    };
    void advance(std::int64_t t_ns) {
        if (t_ns >= newest_end_ns_) return extend_to(t_ns);
        const std::int64_t ns = t_ns - last_ns_;
        Step &step = steps_.back();
        step.area_ns += static_cast<double>(ns) * waiting_;
        if (ns > 0) step.max = std::max(step.max, waiting_);
        last_ns_ = t_ns;
    }
    void begin_at(std::int64_t t_ns);
    void extend_to(std::int64_t t_ns);

    std::vector<Step> steps_;
    std::int64_t origin_ns_ = 0, last_ns_ = 0;
    std::int64_t step_ns_ = 1'000'000;
    std::int64_t newest_end_ns_ = 0;  // end of the last step
    std::uint32_t waiting_ = 0, max_ = 0;
};

}  // namespace planloop::analysis

#endif
