// The table of detectors: a detector is one file and one line in passes.cpp.
#ifndef PLANLOOP_ANALYSIS_PASSES_H
#define PLANLOOP_ANALYSIS_PASSES_H

#include <array>
#include <bit>
#include <cstddef>
#include <memory>
#include <string_view>
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
    void applied(const Event &event) override;
    void finish(Report &report, const SourceNotes &notes);

  private:
    template <class Call>
    void each(Hook hook, Call call) {
        for (Detector *detector : listeners_[place_of(hook)]) call(*detector);
    }
    static std::size_t place_of(Hook hook) { return static_cast<std::size_t>(std::countr_zero(unsigned{hook})); }

    std::vector<std::unique_ptr<Detector>> detectors_;
    std::array<std::vector<Detector *>, kHooks> listeners_;  // by the number of a hook's bit
};

}  // namespace planloop::analysis

#endif
