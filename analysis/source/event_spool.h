// The events of one spool: its streams merged by ticks, each record taken apart into the events it stands for.
//
// A stream's records follow each other by their begin, but a call that a signal handler interrupted ends after later
// records of its stream; so the ends that are still to come wait beside the stream. A stream is opened when the merge
// reaches its first record and closed at its end. n events of k streams cost n log k.
//
// Threads: one user at a time. Errors: none; what could not be read is in the notes.
#ifndef PLANLOOP_ANALYSIS_SOURCE_EVENT_SPOOL_H
#define PLANLOOP_ANALYSIS_SOURCE_EVENT_SPOOL_H

#include <memory>
#include <optional>
#include <vector>

#include "analysis/source/event_part.h"
#include "lockcore/spool_reader.h"

namespace planloop::analysis {

class SpoolEvents final : public EventPart {
  public:
    struct Following {
        bool on = false;
        std::int64_t hold_back_ns = 0;
    };

    SpoolEvents(std::unique_ptr<SpoolReader> reader, std::uint32_t part, EventTables &tables, Following following);
    ~SpoolEvents() override;

    bool next(Event &event) override;
    void poll(bool settled) override;
    std::int64_t now_ns() const override;
    std::pair<std::uint64_t, std::uint64_t> position() const override;
    void add_notes(SourceNotes &notes) const override;
    const SpoolReader &reader() const { return *reader_; }

  private:
    struct Ending {  // of a call whose record was read
        std::uint64_t key;
        Event event;
    };
    struct OpenStream {
        explicit OpenStream(std::size_t index) : cursor(index) {}
        StreamCursor cursor;
        SpoolRecord head;  // the next record, if has_head
        bool has_head = false;
        std::uint64_t head_key = 0;
        std::uint32_t head_rank = 0;
        std::uint32_t speaker = 0;    // Event::speaker of what comes
        std::vector<Ending> endings;  // latest first

        bool ending_is_next() const;
    };
    struct Stream {
        std::unique_ptr<OpenStream> open;
        std::uint64_t last_key = 0;
        bool exiting = false;  // its process said so
        bool over = false;     // it is gone: what is not in it by the next poll() never will be
        bool done = false;
    };
    struct PendingCall {  // followed until it comes back
        std::uint32_t stream;
        SpoolRecord record;
        Event event;
    };
    struct Entry {
        std::uint64_t key = 0;
        std::uint64_t rank_and_stream = 0;

        Entry() = default;
        Entry(std::uint64_t when, std::uint32_t rank, std::uint32_t stream)
            : key(when), rank_and_stream(std::uint64_t{rank} << 32 | stream) {}
        std::uint32_t stream() const { return static_cast<std::uint32_t>(rank_and_stream); }
        bool operator>(const Entry &other) const {
            return key != other.key ? key > other.key : rank_and_stream > other.rank_and_stream;
        }
    };

    void add_streams();
    void set_horizon();
    void recheck_pending();
    void end_streams(const SpoolRecord &ended);
    void rebuild_heap();
    bool advance(std::uint32_t index, Entry &entry);
    bool open_stream(std::uint32_t index);
    static void close_stream(Stream &stream);
    bool learn(OpenStream &open);
    void read_head(std::uint32_t index, OpenStream &open);
    void replace_top(const Entry &entry);
    void remove_top();
    bool taken_back(SpoolRecord &head) const;
    void take_head(std::uint32_t index, Event &event);
    void describe(const SpoolRecord &record, Event &event) const;
    void finish_call(std::uint32_t index, const SpoolRecord &record, const Event &begin);
    bool learn_process(const SpoolRecord &record);
    std::string own_trace_id(const ProcessInfo &info) const;
    std::uint32_t learn_sharer(const SpoolRecord &record);
    void learn_file(const SpoolRecord &record);
    std::uint32_t learn_trace(const SpoolRecord &record, std::uint32_t speaker);
    std::uint32_t learn_program(const SpoolRecord &record);
    std::uint32_t image_of(std::int32_t pid, std::uint64_t start_time) const;
    std::uint32_t number(std::uint32_t local) const { return part_number(part_, local); }
    std::uint64_t key_of(const SpoolRecord &record, std::uint64_t ticks) const {
        return reader_->clock().to_spool_ticks(record.clock, ticks);
    }

    std::unique_ptr<SpoolReader> reader_;
    std::uint32_t part_;
    EventTables &tables_;
    Following following_;
    std::optional<std::uint64_t> horizon_;  // nothing later than this is given out yet
    std::vector<Stream> streams_;
    std::vector<Entry> heap_;
    std::vector<PendingCall> pending_;
    std::unordered_map<std::int32_t, std::vector<std::uint32_t>> images_;     // by pid, oldest first
    std::unordered_map<std::int32_t, std::vector<std::uint32_t>> streaming_;  // while following: open streams, by pid
    std::uint32_t programs_ = 0;
    std::uint32_t sharers_ = 0;
    std::uint32_t operations_ = 0;
    std::uint64_t records_ = 0;  // that were read
};

}  // namespace planloop::analysis

#endif
