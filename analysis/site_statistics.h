// Statistics by place: each call site that made lock calls, with the waits there and the holds of what was acquired
// there.
//
// Memory: by call sites; calls whose place is not known count together. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_SITE_STATISTICS_H
#define PLANLOOP_ANALYSIS_SITE_STATISTICS_H

#include <cstddef>
#include <cstdint>
#include <vector>

#include "analysis/detector.h"
#include "analysis/flat_map.h"
#include "analysis/quantile_sketch.h"

namespace planloop::analysis {

class SiteStatistics {
  public:
    explicit SiteStatistics(const Model &model) : model_(model) {}

    void waited(const Request &request, const WaitEnd &end);
    void request_done(const Request &request, const RequestEnd &end);
    void hold_ended(const Hold &hold, std::int64_t t_ns) { at(hold.site, hold.image).hold.add(t_ns - hold.since_ns); }
    // Also what is held when the recording ends.
    void fill(std::vector<CallSiteRow> &rows, std::size_t named_call_sites) const;

  private:
    struct Site {
        std::uint32_t number = 0, image = 0;
        std::uint64_t acquisitions = 0, contended = 0, failed = 0;
        QuantileSketch wait, hold;
    };
    Site &at(std::uint32_t site, std::uint32_t image) {
        if (latest_ >= sites_.size() || sites_[latest_].number != site) find(site, image);
        return sites_[latest_];
    }
    void find(std::uint32_t site, std::uint32_t image);

    const Model &model_;
    FlatMap places_;
    std::vector<Site> sites_;
    std::size_t latest_ = 0;  // the one that was asked for last: calls of one place follow each other
};

}  // namespace planloop::analysis

#endif
