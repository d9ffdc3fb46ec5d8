// The table of detectors: a detector is one file and one line in passes.cpp.
#ifndef PLANLOOP_ANALYSIS_PASSES_H
#define PLANLOOP_ANALYSIS_PASSES_H

#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "analysis/detector.h"

namespace planloop::analysis {

// Every kind of finding there is, by name; the texts live for ever.
std::vector<std::string_view> finding_kinds();

// All detectors in the order of the table, and for each hook those that asked for it.
class Passes : public Observer {
  public:
    explicit Passes(const Model &model);

    void requested(const Request &request) override;
    void blocked(Index request) override;
    void request_done(Index request, const RequestEnd &end) override;
    void acquired(Index hold) override;
    void hold_ended(Index hold, const HoldEnd &end) override;
    void process_ended(Index process, const ProcessEnd &end) override;
    void nothing_unlocked(Index lock, const Event &event) override;
    void decided(std::uint64_t ticket, Reason reason, EndCertainty certainty) override;
    void child_wait_begun(Index process) override;
    void event(const Event &event) override;
    void finish(Report &report, const SourceNotes &notes);

  private:
    template <class Call>
    void each(unsigned hook, Call call) {
        if ((hooks_ & hook) == 0) return;
        for (auto &[wants, detector] : detectors_)
            if ((wants & hook) != 0) call(*detector);
    }
    unsigned hooks_ = 0;
    std::vector<std::pair<unsigned, std::unique_ptr<Detector>>> detectors_;
};

}  // namespace planloop::analysis

#endif
