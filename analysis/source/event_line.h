// One line of planloop.jsonl taken apart, with simdjson's On-Demand parser: a field at a time in the order of the line,
// without a tree. Fields may stand in any order; where a name comes twice, the last one counts.
//
// Threads: one user at a time. Errors: in the result. Lifetime: the texts are good until the next line is parsed.
#ifndef PLANLOOP_ANALYSIS_SOURCE_EVENT_LINE_H
#define PLANLOOP_ANALYSIS_SOURCE_EVENT_LINE_H

#include <cstdint>
#include <memory>
#include <string_view>

#include "analysis/event.h"

namespace planloop::analysis {

struct EventLine {
    std::string_view event, timestamp;
    std::string_view trace_id, operation, entry, process, source, spool, mode, lock_id, family, path;
    std::int64_t pid = 0, tid = 0, error = 0, wait_ns = 0;
    double wait_ms = 0;
    std::uint64_t start = 0, len = 0;
};

class EventLineParser {
  public:
    EventLineParser();
    ~EventLineParser();
    EventLineParser(const EventLineParser &) = delete;
    EventLineParser &operator=(const EventLineParser &) = delete;

    // False: the line is no JSON object. Of a value with an unexpected type nothing is taken.
    bool parse(std::string_view line, EventLine &fields);

  private:
    struct State;
    std::unique_ptr<State> state_;
};

}  // namespace planloop::analysis

#endif
