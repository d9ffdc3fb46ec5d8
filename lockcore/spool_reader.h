// Reads a spool (wire/spool_format.h), finished, torn, still being written, or closed and compressed.
//
// The file is somebody else's: no length, offset or enumerator in it is believed, nothing is ever written to it, and
// it is read through small windows, never mapped as a whole (a mapping would count as this process's memory, and a file
// cut short under it is SIGBUS). Chunks are found by their own headers, so a lost page loses what was on it and no
// more. Memory: some 64 bytes a chunk, and a window for each stream that is being read.
//
// Reading on: at the end of what is there, poll() looks for what was added since; cursors then continue. A record that
// was pending when it was read is looked at again with reread(). A ring may be overwritten meanwhile: its chunks are
// asked for their headers again after each look, and what was overwritten unread is told by overwritten().
//
// What a cursor may pass while the spool is written: a stream's chunks are claimed, filled and shown one after the
// other, so one that shows up while its predecessor does not was only read later in the same look; the predecessor is
// waited for, half a second at most, since its page may be damaged. Slots are claimed in order and committed in order,
// with two exceptions. Text is committed before the record that it belongs to, so text alone never passes a gap. And
// a signal handler may come between a claim and its commit: what it records passes the gap at the next look, and the
// slot is looked at again at each look from then on, since the handler may block for as long as it likes.
//
// Errors: open() says in one line why a file is no spool that can be read; damage found later is counted and told in
// notes. Threads: one user at a time. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_SPOOL_READER_H
#define PLANLOOP_LOCKCORE_SPOOL_READER_H

#include <array>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lockcore/clock.h"
#include "lockcore/packed_spool.h"
#include "lockcore/result.h"
#include "lockcore/wire/spool_format.h"

namespace planloop {

// A record as plain data, with what its chunk says about it. Enumerators in it are valid.
struct SpoolRecord {
    wire::State state{};
    wire::RecordKind kind{};
    wire::Family family{};
    wire::Mode mode{};
    std::uint8_t flags = 0;
    wire::ClockKind clock{};
    std::uint32_t process = 0;
    std::uint32_t stream = 0;
    std::int32_t pid = 0, tid = 0;
    std::uint32_t commit = 0;
    std::uint64_t slot = 0;  // number of its slot in the file: an identity
    std::uint64_t begin = 0, end = 0;
    std::int32_t error = 0, fd = -1;
    std::uint32_t file = 0, description = 0;
    std::uint64_t a = 0, b = 0, caller = 0;
    std::string payload;  // reassembled from the text slots behind it; shorter than `end` says if some are missing
};

// Whether text slots follow a record of that kind, its payload.
constexpr bool has_text(wire::RecordKind kind) noexcept {
    return kind == wire::RecordKind::process || kind == wire::RecordKind::sharer || kind == wire::RecordKind::file ||
           kind == wire::RecordKind::not_traced || kind == wire::RecordKind::trace || kind == wire::RecordKind::module;
}

struct SpoolChunk {
    std::uint64_t offset = 0;
    std::uint32_t bytes = 0;
    std::uint32_t process = 0;
    std::uint32_t sequence = 0;
    std::uint32_t salt = 0;
    std::int32_t pid = 0, tid = 0;
    wire::ClockKind clock{};

    bool operator<(const SpoolChunk &other) const {
        return sequence != other.sequence ? sequence < other.sequence : offset < other.offset;
    }
};

struct SpoolStream {
    std::uint32_t id = 0;
    wire::ClockKind first_clock{};  // of its first chunk
    std::uint32_t first_sequence = 0;
    std::uint64_t first_ticks = 0;   // on that clock; no record of it began earlier
    std::vector<SpoolChunk> chunks;  // in the order in which they were filled
};

struct SpoolDamage {
    std::uint64_t torn = 0;           // slots that were claimed but never committed
    std::uint64_t damaged = 0;        // slots with a committed record that makes no sense
    std::uint64_t cut_text = 0;       // records some of whose text is missing
    std::uint64_t lost_pages = 0;     // claimed, but in no chunk that names itself
    std::uint64_t missing_bytes = 0;  // the file ends that much before its last chunk does
    bool lost_header = false;         // page 0 is gone; what chunks repeat of it was used
};

class SpoolReader {
  public:
    static Result<std::unique_ptr<SpoolReader>> open(const std::string &path);
    ~SpoolReader();
    SpoolReader(const SpoolReader &) = delete;
    SpoolReader &operator=(const SpoolReader &) = delete;

    const std::string &path() const noexcept { return path_; }
    const BootId &boot() const noexcept { return boot_; }
    const SpoolClock &clock() const noexcept { return clock_; }
    std::int64_t created_utc_ns() const noexcept { return static_cast<std::int64_t>(created_.utc_ns); }
    // When the machine was started, as the spool's clocks have it.
    std::int64_t boot_utc_ns() const noexcept {
        return static_cast<std::int64_t>(created_.utc_ns - created_.monotonic_ns);
    }
    const std::vector<SpoolStream> &streams() const noexcept { return streams_; }
    std::uint64_t ring_bytes() const noexcept { return ring_bytes_; }  // 0: the spool only grows
    // A ring lost events of the past to newer ones before they could be read here.
    bool overwritten() const noexcept { return overwritten_; }
    const SpoolDamage &damage() const noexcept { return damage_; }
    // Events that writers counted but could not record, read afresh.
    std::uint64_t dropped() const;
    // One line for each kind of thing that was passed over, but for the torn slots: those are lost events, to be
    // counted with the dropped ones.
    std::vector<std::string> messages() const;

    // Looks for chunks added since. Streams keep their places in streams(), new ones come behind.
    void poll();
    // The spool is still written: what is not there yet is waited for. False, also after true: nothing is.
    void set_following(bool following) noexcept;
    bool following() const noexcept { return following_; }
    // Whether its clock is the one that this machine has now.
    bool of_this_boot() const noexcept { return of_this_boot_; }
    std::uint64_t polls() const noexcept { return polls_; }

    // Updates what a call that has come back may have changed of a record; true once it is final, or overwritten and
    // still pending as far as is known.
    bool reread(SpoolRecord &record) const;

  private:
    friend class StreamCursor;
    SpoolReader(int fd, std::string path) : path_(std::move(path)), fd_(fd) {}
    Result<void> read_header(std::uint64_t size);
    bool adopt_first_chunk();
    void scan(std::uint64_t from, std::uint64_t to, std::uint64_t limit);
    struct Claim {  // a chunk of a ring
        std::uint32_t stream, sequence;
    };
    void scan_ring(std::uint64_t position);
    void forget_chunk(const Claim &claim, std::uint64_t offset);
    bool read_chunk(std::uint64_t offset, std::uint32_t &bytes);
    bool read_ring_chunk(std::uint64_t offset);
    bool makes_sense(const wire::ChunkHeader &header, std::uint64_t offset) const;
    void add_chunk(const wire::ChunkHeader &header, std::uint64_t first_begin);
    bool still_there(const SpoolChunk &chunk, std::uint32_t stream) const;
    std::optional<wire::Calibration> final_calibration() const;
    void calibrate_here();
    std::uint64_t next_data(std::uint64_t offset) const;
    void read_ahead(bool ahead) const noexcept;
    std::size_t read_at(std::uint64_t offset, void *to, std::size_t bytes) const;
    std::uint64_t file_size() const;

    struct Gap {
        std::uint64_t begin, end;
    };
    std::string path_;
    int fd_ = -1;
    std::unique_ptr<PackedSpool> packed_;  // what is read in place of the file, if it is compressed
    BootId boot_{};
    bool of_this_boot_ = false;
    wire::Calibration created_{};
    std::uint64_t latest_claim_ = 0;  // when the youngest chunk was claimed, in ticks of the counter
    std::uint32_t format_ = 0;        // version of the spool
    SpoolClock clock_;
    std::vector<SpoolStream> streams_;
    std::unordered_map<std::uint32_t, std::size_t> stream_index_;
    std::vector<Gap> gaps_;  // claimed pages that no chunk header covered yet
    struct Recheck {
        std::uint64_t offset;
        std::chrono::steady_clock::time_point until;
    };
    std::uint64_t ring_bytes_ = 0;
    std::uint64_t ring_position_ = 0;                       // looked at as far as this
    std::unordered_map<std::uint64_t, Claim> ring_claims_;  // by offset
    std::vector<Recheck> rechecks_;                         // claimed, but their headers do not show it yet
    bool overwritten_ = false;
    std::uint64_t scanned_to_ = 0;  // chunks below are known
    std::uint64_t chunks_end_ = 0;  // where the last of them ends
    bool sorted_ = false;
    bool following_ = false;
    std::uint64_t polls_ = 0;
    std::unique_ptr<unsigned char[]> scratch_;  // of the cursor that reads just now
    SpoolDamage damage_;
};

// A place in one stream. The window is taken at the first next() and given back at the end of the stream.
class StreamCursor {
  public:
    explicit StreamCursor(std::size_t stream_index) noexcept : stream_(stream_index) {}

    // The next committed record of the stream, texts included; false: no more for now.
    bool next(SpoolReader &reader, SpoolRecord &record);

  private:
    enum class Found : std::uint8_t { committed, nothing, not_yet, overwritten };
    struct Passed {  // a slot that later ones were read before
        SpoolChunk chunk;
        std::uint32_t slot;
    };
    const SpoolChunk *present(const SpoolStream &stream);
    const SpoolChunk *following(const SpoolStream &stream) const;
    bool move_on(SpoolReader &reader, const SpoolStream &stream);
    void give_back_window();
    const unsigned char *slot_at(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot);
    std::size_t read_window(SpoolReader &reader, std::size_t bytes);
    void pass(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot);
    bool take_passed(SpoolReader &reader, SpoolRecord &record);
    bool take_from_window(const SpoolReader &reader, const SpoolStream &stream, SpoolRecord &record);
    bool finish_record(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot, SpoolRecord &record);
    bool still_to_come(std::uint32_t sequence);
    bool is_last(const SpoolReader &reader, const SpoolStream &stream);
    bool still_caught_up(const SpoolReader &reader, const SpoolChunk &chunk) const;
    Found find_committed(SpoolReader &reader, const SpoolChunk &chunk, bool last_chunk);
    void read_payload(SpoolReader &reader, const SpoolChunk &chunk, std::uint64_t bytes, std::string &payload);

    std::size_t stream_;
    std::uint32_t missing_ = 0;  // number of a chunk that is waited for
    std::chrono::steady_clock::time_point missing_until_;
    // The chunk is known by its number, not by its place: chunks come and go while a spool is followed. One that shows
    // up with a lower number was given up on, and is not gone back to.
    bool begun_ = false;
    std::uint32_t sequence_ = 0;
    std::uint64_t chunk_offset_ = 0;
    std::size_t place_ = 0;           // where it was last
    std::uint32_t slot_ = 1;          // in the chunk; slot 0 is its header
    bool gone_ = false;               // overwritten since its header was read
    std::uint64_t caught_up_at_ = 0;  // the poll at which there was nothing more in it
    std::uint64_t window_begin_ = 0;
    std::uint64_t window_poll_ = 0;  // what was read before the last poll() is old
    std::uint32_t window_used_ = 0;
    std::uint32_t window_bytes_ = 0;
    std::unique_ptr<unsigned char[]> window_;
    std::uint64_t stalled_slot_ = 0;  // an uncommitted slot that a committed one follows, first met at stalled_poll_
    std::uint64_t stalled_poll_ = 0;
    std::vector<Passed> passed_;
    std::uint64_t passed_poll_ = 0;  // of the last look at them
};

}  // namespace planloop

#endif
