// A source in front of another: what it does not answer itself, the other one does. Threads: as the other.
#ifndef PLANLOOP_ANALYSIS_SOURCE_PASSING_SOURCE_H
#define PLANLOOP_ANALYSIS_SOURCE_PASSING_SOURCE_H

#include <cstdint>
#include <memory>
#include <utility>

#include "analysis/event.h"

namespace planloop::analysis {

class PassingSource : public EventSource {
  public:
    explicit PassingSource(std::unique_ptr<EventSource> inner) : inner_(std::move(inner)) {}

    bool next(Event &event) override { return inner_->next(event); }
    const ProcessInfo &process(std::uint32_t id) const override { return inner_->process(id); }
    const FileInfo &file(std::uint32_t id) const override { return inner_->file(id); }
    const CallSite &call_site(std::uint32_t site) const override { return inner_->call_site(site); }
    std::int64_t now_ns() const override { return inner_->now_ns(); }
    double share_read() const override { return inner_->share_read(); }
    SourceNotes notes() const override { return inner_->notes(); }

  private:
    std::unique_ptr<EventSource> inner_;
};

}  // namespace planloop::analysis

#endif
