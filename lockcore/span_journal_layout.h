// What lies in the file of a SpanJournal, byte for byte. Internal to it.
#ifndef PLANLOOP_LOCKCORE_SPAN_JOURNAL_LAYOUT_H
#define PLANLOOP_LOCKCORE_SPAN_JOURNAL_LAYOUT_H

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "lockcore/process_status.h"
#include "lockcore/session.h"
#include "lockcore/span_journal.h"
#include "lockcore/trace_id.h"

namespace planloop {

struct JournalHeader {
    char magic[8];
    std::uint32_t version;
    std::int32_t pid;
    std::uint64_t process_start;  // of /proc/PID/stat, clock ticks after boot
    std::uint8_t boot[16];
    std::int64_t begin_utc_ns, begin_monotonic_ns;
    char trace_id[kLongestTraceId + 8];
    char operation[72];
    char session_id[kLongestSessionId + 8];
    char process[32];
    char command[2048];  // arguments with a NUL behind each, then another
    std::atomic<std::uint32_t> finished;
    std::atomic<std::uint32_t> next;      // slots claimed
    std::atomic<std::uint32_t> reserved;  // slots that may be touched
    std::atomic<std::uint32_t> locks;
    std::atomic<std::uint64_t> dropped, lock_wait_ns, lock_hold_ns;
};

struct SpanSlot {
    std::atomic<std::uint32_t> commit;
    std::uint32_t parent;  // of a text slot: its span
    std::int64_t begin_ns;
    std::atomic<std::int64_t> end_ns;
    std::int32_t tid, pid;
    std::atomic<std::uint8_t> status;
    std::uint8_t name_bytes;
    char name[26];
};

namespace journal {

struct TextSlot {
    std::atomic<std::uint32_t> commit;
    std::uint32_t span;
    std::uint16_t bytes;
    std::uint8_t kind;
    std::uint8_t last;  // of one text
    char text[52];
};

constexpr char kMagic[8] = {'P', 'L', 'S', 'P', 'A', 'N', 'S', '1'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 4096;
constexpr std::size_t kSlotBytes = 64;
constexpr std::size_t kMapBytes = kHeaderBytes + std::size_t{SpanJournal::kMostSlots} * kSlotBytes;

static_assert(sizeof(JournalHeader) <= kHeaderBytes);
static_assert(sizeof(SpanSlot) == kSlotBytes && sizeof(TextSlot) == kSlotBytes);
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<std::uint8_t>::is_always_lock_free);

// Different in each slot, so that stray bytes are not taken for one.
inline std::uint32_t commit_word(std::uint32_t slot, bool is_text) {
    return (slot * 2 + (is_text ? 1 : 0)) ^ 0x5eed5ba2U;
}

// Clock ticks after boot; 0: no such process.
inline std::uint64_t start_of_process(std::int32_t pid) {
    return process_status(pid).value_or(ProcessStatus()).start_time;
}

}  // namespace journal
}  // namespace planloop

#endif
