// Bytes put aside until they are wanted: in memory while they are few, then in a file without a name under $TMPDIR that
// the kernel removes when this process ends, however it ends. Serves the timeline of a JSON report, which stands in
// the middle of an object whose beginning is known only after the last event.
//
// Errors: the first failed write is kept and returned by copy_to(). Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_RENDER_SPILL_H
#define PLANLOOP_ANALYSIS_RENDER_SPILL_H

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "lockcore/result.h"

namespace planloop::analysis {

class TimelineSpill {
  public:
    explicit TimelineSpill(std::size_t memory_bytes = std::size_t{1} << 20);
    ~TimelineSpill();
    TimelineSpill(const TimelineSpill &) = delete;
    TimelineSpill &operator=(const TimelineSpill &) = delete;

    void append(std::string_view bytes);
    bool empty() const { return buffer_.empty() && fd_ < 0; }

    // Hands all that was appended to `write` in order, in pieces; stops when `write` returns false.
    Result<void> copy_to(const std::function<bool(std::string_view)> &write);

  private:
    void flush();

    std::size_t memory_bytes_;
    std::string buffer_;
    int fd_ = -1;
    int error_ = 0;  // errno of the first failure
};

}  // namespace planloop::analysis

#endif
