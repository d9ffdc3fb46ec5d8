// Makes the timeline, line by line and in time order, and hands it to the sink.
//
// A line leaves as soon as it is certain. While the reason of some release is undecided, it and what comes after it
// wait here, kMostWaiting lines at the most: then the oldest leaves with the likeliest reason.
#ifndef PLANLOOP_ANALYSIS_TIMELINE_H
#define PLANLOOP_ANALYSIS_TIMELINE_H

#include <cstdint>
#include <deque>
#include <vector>

#include "analysis/detector.h"

namespace planloop::analysis {

class Timeline : public Observer {
  public:
    static constexpr std::size_t kMostWaiting = 32'768;

    // `longest_delay_ns` 0: as long as kMostWaiting allows.
    Timeline(const Model &model, const TimelineSink &sink, const TimelineSink &vain_waits,
             std::int64_t longest_delay_ns, bool call_sites)
        : model_(model),
          sink_(sink),
          vain_waits_(vain_waits),
          longest_delay_ns_(longest_delay_ns),
          call_sites_(call_sites) {}

    void start_at(std::int64_t utc_ns) { from_utc_ns_ = utc_ns; }
    // Of other times the sink wants no lines; most of these are not even made.
    void tell_between(std::int64_t since_ns, std::int64_t until_ns) {
        since_ns_ = since_ns;
        until_ns_ = until_ns;
    }
    std::uint64_t lines() const { return lines_; }

    void requested(const Request &request) override;
    void request_done(Index request, const RequestEnd &end) override;
    void waited(const Request &request, const WaitEnd &end) override;
    void hold_ended(Index hold, const HoldEnd &end) override;
    void decided(std::uint64_t ticket, Reason reason, EndCertainty certainty) override;
    void flush();

  private:
    struct Line {
        EventKind kind{};
        wire::Family family{};
        wire::Mode mode{};
        Reason reason{};
        EndCertainty certainty{};
        int error = 0;
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
        Index lock = kNone;
        std::uint32_t tries = 1;
        std::uint32_t site = 0;
        std::int64_t t_ns = 0, wait_ns = 0, hold_ns = 0;
        std::uint64_t entry = 0, start = 0, len = 0, ticket = 0;
        std::uint8_t flags = 0;  // wire::Flags
        bool blocking = false, owned = true, awaited = false;
        std::vector<Blame> blame;
    };

    // A line that nobody wants may be left out where it would leave at once: one that waits here delays others.
    bool is_spared(std::int64_t t_ns) const {
        return !sink_ || (waiting_.empty() && (t_ns < since_ns_ || t_ns > until_ns_));
    }
    Line line_for(const Request &request, EventKind kind, std::int64_t t_ns) const;
    void add(Line &&line);
    static void guess(Line &line);
    void emit(const Line &line) { hand(line, sink_); }
    void hand(const Line &line, const TimelineSink &sink);
    void emit_certain();

    const Model &model_;
    const TimelineSink &sink_, &vain_waits_;
    std::int64_t longest_delay_ns_;
    bool call_sites_;
    std::int64_t from_utc_ns_ = 0;
    std::int64_t since_ns_ = INT64_MIN, until_ns_ = INT64_MAX;
    std::uint64_t lines_ = 0;
    std::deque<Line> waiting_;
    TimelineEntry entry_;  // kept for its memory
};

}  // namespace planloop::analysis

#endif
