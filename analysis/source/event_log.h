// The events of planloop.jsonl: what programs wrote there as it happened, and what was exported from a spool (`spool`
// has its name) if that spool is gone.
//
// Lines of many writers are nearly in time order; a bounded heap puts them into it. Memory: that heap, one line, and a
// number for each process, thread and lock.
//
// Threads: one user at a time. Errors: what is no lock event is passed over, what is broken is counted in the notes.
#ifndef PLANLOOP_ANALYSIS_SOURCE_EVENT_LOG_H
#define PLANLOOP_ANALYSIS_SOURCE_EVENT_LOG_H

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "analysis/source/event_line.h"
#include "analysis/source/event_part.h"
#include "lockcore/jsonl.h"

namespace planloop::analysis {

struct LogFields;  // of one line, parsed

class LogEvents final : public EventPart {
  public:
    // Tells whether the spool of that name is read, so that its events need not be taken from here.
    using SpoolIsRead = std::function<bool(const std::string &name)>;

    LogEvents(LineReader reader, std::string path, EventTables &tables, SpoolIsRead spool_is_read, bool following,
              std::int64_t hold_back_ns);

    bool next(Event &event) override;
    void poll(bool settled) override;
    void add_notes(SourceNotes &notes) const override;

  private:
    struct Waiting {
        Event event;
        std::uint64_t order;
        bool operator>(const Waiting &other) const {
            if (event.t_ns != other.event.t_ns) return event.t_ns > other.event.t_ns;
            const int rank = event_rank(event.kind);
            const int other_rank = event_rank(other.event.kind);
            return rank != other_rank ? rank > other_rank : order > other.order;
        }
    };

    enum class Parsed : std::uint8_t { event, other, broken };  // other: not to be taken from here

    bool read_one();
    void take_line(std::string_view line);
    Parsed parse(std::string_view line, LogFields &fields);
    void take_fields(const LogFields &fields);
    std::int64_t time_of(const LogFields &fields);
    std::uint32_t process_number(const LogFields &fields);
    std::uint32_t thread_number(const LogFields &fields);
    std::uint32_t lock_number(const LogFields &fields);

    LineReader reader_;
    std::string path_;
    std::unique_ptr<EventLineParser> parser_;
    EventTables &tables_;
    SpoolIsRead spool_is_read_;
    bool following_;
    std::int64_t hold_back_ns_;
    std::int64_t horizon_ns_;
    bool at_end_ = false;
    std::vector<Waiting> heap_;
    std::uint64_t order_ = 0;
    std::unordered_map<std::string, std::uint32_t> processes_, threads_, locks_;
    std::uint64_t broken_ = 0, torn_ = 0;
    struct Writer {
        std::int64_t last_ns;  // as it said
        std::uint64_t steps;   // that were known then
    };
    std::unordered_map<std::int64_t, Writer> writers_;  // by pid
    std::uint64_t steps_ = 0;                           // of the clock, backwards
    std::int64_t shift_ns_ = 0, latest_ns_ = 0;
};

}  // namespace planloop::analysis

#endif
