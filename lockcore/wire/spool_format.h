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
// A spool with `ring_bytes` is a flight recorder: it keeps the newest. Its chunks all have kRingChunkBytes and stand
// from kRingChunkBytes on; `next_offset` counts on past the end of the file, and the chunk that is claimed at a
// position p is the one at ring_offset(p), if it may be taken: never used, left by its thread, or its thread is gone. A
// chunk that a thread still writes into is passed over. So the oldest goes first, and nobody writes into another's
// chunk. Who takes a chunk stores a ring_taking() word in place of its magic, zeroes it and writes a new header; a
// reader looks at the header again after it has read slots, and drops them when it has changed. What records refer to
// is repeated (kRepeated) in each chunk: a chunk with a lock call in it also has its process and its file.
//
// Rejected for the ring: rings of each thread's own (a session's bound would depend on its number of threads, and what
// dead threads leave would have to be shared anyway); a part of the file that is never recycled for introductions (a
// recorder that is left on for weeks meets more processes than any such part holds).
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
// A chunk of a ring whose thread has left it.
inline constexpr std::uint32_t kLeftChunkMagic = 0x4c4e4843;  // "CHNL"
// Version 1 had no ring, and salts that told the offset alone.
inline constexpr std::uint32_t kFormatVersion = 2;
inline constexpr std::uint32_t kEndianMark = 0x01020304;
inline constexpr std::size_t kPageBytes = 4096;
inline constexpr std::size_t kSlotBytes = sizeof(Record);
inline constexpr std::size_t kFirstChunkBytes = kPageBytes;
inline constexpr std::size_t kLargestChunkBytes = 256 * 1024;
inline constexpr std::uint64_t kDefaultLimitBytes = std::uint64_t{1} << 30;
// In a ring. Room for the longest introductions of a process and a file together, and for some lock calls.
inline constexpr std::size_t kRingChunkBytes = 16 * 1024;
inline constexpr std::uint64_t kSmallestRingBytes = 16 * kRingChunkBytes;

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
inline constexpr std::uint32_t kRecorderBits = 16384;

// Whether a spool may still be written. Who wants to close it (to compress it) says so, looks whether any process has
// it mapped, and then makes it final; who opens it meanwhile takes it back. A closed one gets another name at once.
enum class Closing : std::uint32_t { open, wanted, closed };

struct SpoolHeader {
    char magic[8];
    std::uint32_t version;
    std::uint32_t endian;
    std::uint8_t boot_id[16];
    std::uint32_t owner_uid;
    ClockKind clock;
    Calibration created;
    std::uint64_t limit_bytes;  // the file never grows past this
    std::uint64_t ring_bytes;   // a multiple of kRingChunkBytes; 0: at its limit the spool records nothing more

    alignas(64) std::atomic<std::uint64_t> next_offset;  // where the next chunk starts
    std::atomic<std::uint64_t> reserved_bytes;           // allocated on disk, from the file's start
    std::atomic<std::uint32_t> growing;                  // tid of the thread that extends the file; 0: nobody
    std::atomic<std::uint32_t> supervisor;               // pid of a live `dev run`; 0: none
    std::atomic<Closing> closing;
    std::atomic<std::uint32_t> foreign_pids;  // 1: somebody here has pids that mean nothing to others (a pid namespace)
    std::uint64_t pid_space;                  // inode of the maker's pid namespace; 0: not known

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

    // The clocks when the last supervisor or program ended, so that every reader gets the same times: the counter's
    // rate is worked out from two Calibrations, and one taken while reading gives another rate each time. Ticks are
    // stored last; 0: none, 1: somebody is at it.
    std::atomic<std::uint64_t> final_ticks, final_monotonic_ns, final_utc_ns;

    // Which pids have recorded, modulo kRecorderBits and for ever: a parent that never recorded anything does so when
    // it is told of the end of such a child, since only a wait for the one puts the next child behind it.
    std::atomic<std::uint64_t> recorders[kRecorderBits / 64];
};
static_assert(sizeof(SpoolHeader) <= kPageBytes);
static_assert(offsetof(SpoolHeader, next_offset) % 64 == 0 && offsetof(SpoolHeader, next_process) % 64 == 0);

inline void note_recorder(SpoolHeader &header, std::int32_t pid) noexcept {
    const auto bit = static_cast<std::uint32_t>(pid) % kRecorderBits;
    header.recorders[bit / 64].fetch_or(std::uint64_t{1} << bit % 64, std::memory_order_release);
}
inline bool may_have_recorded(const SpoolHeader &header, std::int32_t pid) noexcept {
    const auto bit = static_cast<std::uint32_t>(pid) % kRecorderBits;
    return (header.recorders[bit / 64].load(std::memory_order_acquire) >> bit % 64 & 1) != 0;
}

struct alignas(64) ChunkHeader {
    std::uint32_t magic;  // stored last, with release order
    std::uint16_t version;
    std::uint16_t clock;     // bit 0: ClockKind of the records in it: a process may be forbidden to read the counter;
                             // from bit 1 on: how often the chunk has been claimed, so that no two claims look alike
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

constexpr ClockKind chunk_clock(std::uint16_t clock) noexcept {
    return static_cast<ClockKind>(clock & 1);
}
constexpr std::uint16_t chunk_clock_and_claim(ClockKind clock, std::uint16_t claim) noexcept {
    return static_cast<std::uint16_t>(static_cast<std::uint32_t>(clock) | std::uint32_t{claim} << 1);
}

// The beginning of a ChunkHeader, which is read and written whole: who takes a chunk of a ring must see all of it.
struct alignas(8) ChunkStart {
    std::uint32_t magic;
    std::uint16_t version;
    std::uint16_t clock;
};
static_assert(sizeof(ChunkStart) == sizeof(std::uint64_t) && offsetof(ChunkStart, version) == 4 &&
              offsetof(ChunkHeader, version) == 4 && offsetof(ChunkStart, clock) == offsetof(ChunkHeader, clock));

inline std::atomic_ref<ChunkStart> chunk_start(ChunkHeader &header) noexcept {
    return std::atomic_ref<ChunkStart>(reinterpret_cast<ChunkStart &>(header));
}

// What every commit word of a chunk carries, so that stray bytes are not taken for a record, nor are those of who had
// the chunk before.
constexpr std::uint32_t chunk_salt(std::uint64_t offset, std::uint32_t stream, std::uint32_t sequence) noexcept {
    std::uint32_t mixed = static_cast<std::uint32_t>(offset / kPageBytes) * 0x9e3779b1u;
    mixed ^= stream * 0x85ebca6bu ^ sequence * 0xc2b2ae35u;
    return ((mixed ^ mixed >> 15) & 0xffffffu) | 1u;
}
constexpr std::uint32_t chunk_salt_of_version_1(std::uint64_t offset) noexcept {
    return static_cast<std::uint32_t>((offset / kPageBytes * 0x9e3779b1u) & 0xffffffu) | 1u;
}

// Where in the file the chunk of a position of a ring is.
constexpr std::uint64_t ring_offset(std::uint64_t position, std::uint64_t ring_bytes) noexcept {
    return kRingChunkBytes + (position - kRingChunkBytes) % ring_bytes;
}
// In place of a magic: this thread is taking the chunk. No magic has the top bit.
constexpr std::uint32_t ring_taking(std::uint32_t tid) noexcept {
    return 0x80000000u | tid;
}
constexpr bool is_ring_taking(std::uint32_t magic) noexcept {
    return (magic & 0x80000000u) != 0;
}

}  // namespace planloop::wire

#endif
