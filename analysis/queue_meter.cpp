#include "analysis/queue_meter.h"

#include <algorithm>

namespace planloop::analysis {

void QueueMeter::extend_to(std::int64_t t_ns) {
    while (t_ns - origin_ns_ >= step_ns_ * static_cast<std::int64_t>(kMostSteps)) {
        for (std::size_t i = 0; i < steps_.size(); i += 2) {
            Step both = steps_[i];
            if (i + 1 < steps_.size()) {
                both.area_ns += steps_[i + 1].area_ns;
                both.max = std::max(both.max, steps_[i + 1].max);
            }
            steps_[i / 2] = both;
        }
        steps_.resize((steps_.size() + 1) / 2);
        step_ns_ *= 2;
    }
    const auto reached = static_cast<std::size_t>((t_ns - origin_ns_) / step_ns_);
    if (waiting_ > 0) {
        for (auto at = static_cast<std::size_t>((last_ns_ - origin_ns_) / step_ns_); at <= reached; ++at) {
            if (steps_.size() <= at) steps_.resize(at + 1);
            const std::int64_t begin = origin_ns_ + static_cast<std::int64_t>(at) * step_ns_;
            const std::int64_t ns = std::min(t_ns, begin + step_ns_) - std::max(last_ns_, begin);
            steps_[at].area_ns += static_cast<double>(ns) * waiting_;
            if (ns > 0) steps_[at].max = std::max(steps_[at].max, waiting_);
        }
    }
    if (steps_.size() <= reached) steps_.resize(reached + 1);
    newest_end_ns_ = origin_ns_ + static_cast<std::int64_t>(steps_.size()) * step_ns_;
    last_ns_ = t_ns;
}

void QueueMeter::begin_at(std::int64_t t_ns) {
    origin_ns_ = last_ns_ = t_ns;
    steps_.emplace_back();
}

QueueDepth QueueMeter::depth(std::int64_t from_ns, std::int64_t to_ns) const {
    QueueDepth made;
    if (steps_.empty()) return made;
    QueueMeter whole = *this;
    whole.advance(std::max(to_ns, last_ns_));
    double area_ns = 0;
    for (const Step &step : whole.steps_) {
        area_ns += step.area_ns;
        made.steps.push_back({step.max, step.area_ns / static_cast<double>(whole.step_ns_)});
    }
    made.max = max_;
    made.mean = to_ns > from_ns ? area_ns / static_cast<double>(to_ns - from_ns) : 0;
    made.step_ns = whole.step_ns_;
    made.from_ns = origin_ns_ - from_ns;
    return made;
}

}  // namespace planloop::analysis
