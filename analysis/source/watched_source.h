// A source that tells how far its reader has come, for what takes long: from the end of the first second on, ten times
// a second at most. What it tells costs nothing until then but a look at the clock for every 65,536 events.
//
// Threads: one user at a time.
#ifndef PLANLOOP_ANALYSIS_SOURCE_WATCHED_SOURCE_H
#define PLANLOOP_ANALYSIS_SOURCE_WATCHED_SOURCE_H

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

#include "analysis/source/passing_source.h"

namespace planloop::analysis {

class WatchedSource final : public PassingSource {
  public:
    using Clock = std::function<std::chrono::steady_clock::time_point()>;
    // `share` of the whole, from 0 to 1; below 0: not known. `events` so far.
    using Tell = std::function<void(double share, std::uint64_t events)>;
    static constexpr std::uint64_t kStride = std::uint64_t{1} << 16;  // events
    static constexpr std::chrono::milliseconds kPatience{1000}, kPause{100};

    WatchedSource(std::unique_ptr<EventSource> source, Tell tell, Clock clock = std::chrono::steady_clock::now)
        : PassingSource(std::move(source)),
          tell_(std::move(tell)),
          clock_(std::move(clock)),
          next_(clock_() + kPatience) {}

    bool next(Event &event) override {
        if (++events_ % kStride == 0) look();
        return PassingSource::next(event);
    }

  private:
    void look() {
        const auto now = clock_();
        if (now < next_) return;
        next_ = now + kPause;
        tell_(share_read(), events_);
    }

    Tell tell_;
    Clock clock_;
    std::chrono::steady_clock::time_point next_;
    std::uint64_t events_ = 0;
};

}  // namespace planloop::analysis

#endif
