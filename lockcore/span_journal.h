// Where spans lie while their operation runs: `traces/.open/{trace_id}.{pid}.{n}`, mapped and shared, so that they
// outlive the process. Internal to span.h; read by whoever looks for operations that died.
//
//   page 0   JournalHeader: who, when, the clock, how many slots are taken
//   then     slots of 64 bytes: a span (name, times, parent, status), or text that belongs to one
//
// A span takes its slot by one fetch_add, and publishes it by a release store of the commit word; its end is another
// store. Names of more than 26 bytes and metadata go to text slots. Space is promised (fallocate(2)) before it is
// touched, so a full disk is a dropped span and not a SIGBUS; where no file can be made, the journal lies in memory and
// only the recovery is lost. At the end of the operation the trace is written and the file removed.
//
// A reader trusts nothing in the file: magic, version, size, commit words, parents and lengths are checked. Whether the
// owner lives is told by pid, start time and boot.
//
// Units: ns of CLOCK_MONOTONIC, with one pair of UTC and monotonic time in the header. Threads: begin(), end() and
// text() are lock-free but for growth. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_SPAN_JOURNAL_H
#define PLANLOOP_LOCKCORE_SPAN_JOURNAL_H

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

struct JournalHeader;
struct SpanSlot;

enum class SpanStatus : std::uint8_t { open, ok, error };
enum class SpanText : std::uint8_t { name, metadata, error };

// A span as it is read back.
struct SpanRecord {
    std::string name, metadata, error;              // metadata: members of a JSON object, "\"size\":12,…"
    std::uint32_t id = 0, parent = 0;               // 0: none
    std::int64_t begin_utc_ns = 0, end_utc_ns = 0;  // end 0: open
    std::int32_t pid = 0, tid = 0;
    SpanStatus status = SpanStatus::open;
};

struct OperationRecord {
    std::string trace_id, operation, session_id, process;
    std::vector<std::string> command;
    std::int32_t pid = 0;
    std::int64_t begin_utc_ns = 0;
    std::int64_t last_utc_ns = 0;  // the last time that anything in it speaks of
    std::uint64_t lock_wait_ns = 0, lock_hold_ns = 0, locks = 0, dropped = 0;
    bool finished = false;
    std::vector<SpanRecord> spans;  // by id
};

class SpanJournal : public std::enable_shared_from_this<SpanJournal> {
  public:
    static constexpr std::uint32_t kMostSlots = 1u << 16;  // 4 MiB
    static constexpr std::uint32_t kNone = 0;

    // `directory` empty, or not writable: in memory.
    static std::shared_ptr<SpanJournal> create(const std::string &directory, const OperationRecord &operation);
    ~SpanJournal();  // leaves the file; see remove()
    SpanJournal(const SpanJournal &) = delete;
    SpanJournal &operator=(const SpanJournal &) = delete;

    // A span's id, or kNone when there is no room.
    std::uint32_t begin(std::string_view name, std::uint32_t parent) noexcept;
    void end(std::uint32_t span, SpanStatus status) noexcept;
    void fail(std::uint32_t span) noexcept;  // whatever end() says
    // One that is over: it lasted until now.
    std::uint32_t add(std::string_view name, std::uint32_t parent, std::int64_t duration_ns) noexcept;
    void text(std::uint32_t span, SpanText kind, std::string_view text) noexcept;
    void count_lock(std::int64_t wait_ns, std::int64_t hold_ns) noexcept;

    OperationRecord read() const;
    // The last few spans, and those that `span` lies in.
    std::vector<SpanRecord> recent(std::uint32_t span) const;
    void remove() noexcept;  // the file

    static Result<OperationRecord> read_file(const std::string &path);
    // Whether the process that made it is gone, or was killed while it did.
    static bool is_abandoned(const std::string &path);

  protected:
    SpanJournal() = default;

  private:
    std::uint32_t slots_in_use() const noexcept;
    SpanSlot *claim(std::uint32_t slots, std::uint32_t &first) noexcept;
    bool grow(std::uint32_t slots) noexcept;

    JournalHeader *header_ = nullptr;
    SpanSlot *slots_ = nullptr;
    int fd_ = -1;
    std::string path_;
};

}  // namespace planloop

#endif
