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

#include "analysis/event.h"

namespace planloop::analysis {

class WatchedSource final : public EventSource {
  public:
    using Clock = std::function<std::chrono::steady_clock::time_point()>;
    // `share` of the whole, from 0 to 1; below 0: not known. `events` so far.
    using Tell = std::function<void(double share, std::uint64_t events)>;
    static constexpr std::uint64_t kStride = std::uint64_t{1} << 16;  // events
    static constexpr std::chrono::milliseconds kPatience{1000}, kPause{100};

    WatchedSource(std::unique_ptr<EventSource> source, Tell tell, Clock clock = std::chrono::steady_clock::now)
        : source_(std::move(source)), tell_(std::move(tell)), clock_(std::move(clock)), next_(clock_() + kPatience) {}

    bool next(Event &event) override {
        if (++events_ % kStride == 0) look();
        return source_->next(event);
    }
    const ProcessInfo &process(std::uint32_t id) const override { return source_->process(id); }
    const FileInfo &file(std::uint32_t id) const override { return source_->file(id); }
    const CallSite &call_site(std::uint32_t site) const override { return source_->call_site(site); }
    std::int64_t now_ns() const override { return source_->now_ns(); }
    double share_read() const override { return source_->share_read(); }
    SourceNotes notes() const override { return source_->notes(); }

  private:
    void look() {
        const auto now = clock_();
        if (now < next_) return;
        next_ = now + kPause;
        tell_(source_->share_read(), events_);
    }

    std::unique_ptr<EventSource> source_;
    Tell tell_;
    Clock clock_;
    std::chrono::steady_clock::time_point next_;
    std::uint64_t events_ = 0;
};

}  // namespace planloop::analysis

#endif
