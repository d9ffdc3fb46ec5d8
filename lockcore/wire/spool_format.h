// A spool: the memory-mapped file that all traced processes of one session and one boot write into.
//
//   page 0            SpoolHeader
//   from page 1 on    chunks, each a whole number of pages: one ChunkHeader (one slot), then record slots
//
// One file for the session and not one for each process or thread: making, reserving and mapping a file costs a
// short process more than all its lock calls do (1.14 of a spawn against 1.02 for an empty preload), and ten
// thousand processes would leave ten thousand files. A thread claims a chunk by moving `next_offset`, atomically; its
// first is a page, so that thousands of threads stay cheap, each further one four times as large up to
// kLargestChunkBytes. Chunks of one stream (a thread of one process image) are numbered. Space below
// `reserved_bytes` is allocated on disk before anyone writes it, since a store to a page without a block is
// SIGBUS in somebody's program; what was reserved is never given back while the session may record.
//
// Chunk headers repeat what a reader needs if page 0 is lost, and their own offset: after a claim whose owner died
// before it wrote its header, a reader looks for the next page that names itself.
//
// The file is `logs/spool/locks-v<version>-<first 8 hex digits of the boot id>.spool`: ticks of two boots cannot be
// compared, and a writer never appends to a format it does not know.
#ifndef PLANLOOP_LOCKCORE_WIRE_SPOOL_FORMAT_H
#define PLANLOOP_LOCKCORE_WIRE_SPOOL_FORMAT_H

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "lockcore/wire/record.h"

namespace planloop::wire {

inline constexpr char kSpoolMagic[8] = {'P', 'L', 'S', 'P', 'O', 'O', 'L', '\n'};
inline constexpr std::uint32_t kChunkMagic = 0x4b4e4843;  // "CHNK"
inline constexpr std::uint32_t kFormatVersion = 1;
inline constexpr std::uint32_t kEndianMark = 0x01020304;
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kSlotBytes = sizeof(Record);
inline constexpr std::size_t kFirstChunkBytes = kPageBytes;
inline constexpr std::size_t kLargestChunkBytes = 256 * 1024;
inline constexpr std::uint64_t kDefaultLimitBytes = std::uint64_t{1} << 30;

enum class ClockKind : std::uint32_t {
    monotonic,  // ticks are nanoseconds of CLOCK_MONOTONIC
    tsc,        // ticks of the invariant time-stamp counter; rate from two Calibrations
};

// The same instant on three clocks. Two of them, far apart, give the counter's rate; the first gives UTC.
struct Calibration {
    std::uint64_t ticks;
    std::uint64_t monotonic_ns;
    std::uint64_t utc_ns;  // CLOCK_REALTIME
};

// Why an event was not recorded. Each counts what would have been one Record.
enum class Drop : std::uint32_t {
    no_space,
    size_limit,
    no_mapping,
    reentered,
    too_long,
    sandboxed,
    untold_share,   // no room in the share table: who else shares a lock, and when it lets go, may be missing
    no_descriptor,  // the process or the system had no descriptor left to open the spool with
    count,
};

inline constexpr std::uint32_t kSharingPids = 64;

struct SpoolHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t endian;
    std::uint8_t boot_id[16];
    std::uint32_t owner_uid;
    ClockKind clock;
    Calibration created;
    std::uint64_t limit_bytes;  // the file never grows past this

    alignas(64) std::atomic<std::uint64_t> next_offset;  // where the next chunk starts
    std::atomic<std::uint64_t> reserved_bytes;           // allocated on disk, from the file's start
    std::atomic<std::uint32_t> growing;                  // tid of the thread that extends the file; 0: nobody
    std::atomic<std::uint32_t> supervisor;               // pid of a live `dev run`; 0: none

    alignas(64) std::atomic<std::uint32_t> next_process;  // counters of session-wide numbers; 0 is never given
    std::atomic<std::uint32_t> next_stream;
    std::atomic<std::uint32_t> next_file;
    std::atomic<std::uint32_t> next_description;

    alignas(64) std::atomic<std::uint64_t> dropped[static_cast<std::size_t>(Drop::count)];

    // Not 0: a lock call was made on a description that several processes may share, and share_table.h tells which.
    // Whoever then closes a descriptor, forks, execs or exits looks whether it shares what it never locked itself.
    alignas(64) std::atomic<std::uint64_t> shares_about;

    // Processes that share a lock's description and may never record anything themselves: a supervisor watches for
    // their end. A ring of pids; `next_sharing` counts what was ever put in.
    alignas(64) std::atomic<std::uint32_t> next_sharing;
    std::atomic<std::int32_t> sharing[kSharingPids];
};
static_assert(sizeof(SpoolHeader) <= kPageBytes);
static_assert(offsetof(SpoolHeader, next_offset) % 64 == 0 && offsetof(SpoolHeader, next_process) % 64 == 0);

struct alignas(64) ChunkHeader {
    std::uint32_t magic;  // stored last, with release order
    std::uint16_t version;
    std::uint16_t clock;     // ClockKind of the records in it: a process may be forbidden to read the counter
    std::uint64_t offset;    // of this header in the file
    std::uint32_t bytes;     // of the chunk, this header included
    std::uint32_t process;   // the process image
    std::uint32_t stream;    // the thread's stream
    std::uint32_t sequence;  // of this chunk in its stream, from 0
    std::int32_t pid;
    std::int32_t tid;
    Calibration claimed;
};
static_assert(sizeof(ChunkHeader) == 64);

// What every commit word of a chunk carries, so that stray bytes are not taken for a record.
constexpr std::uint32_t chunk_salt(std::uint64_t offset) noexcept {
    return static_cast<std::uint32_t>((offset / kPageBytes * 0x9e3779b1u) & 0xffffffu) | 1u;
}

}  // namespace planloop::wire

#endif
