// One record of a spool: what the shim writes for each lock call, and what a reader of any age must be able
// to read back. This header is the contract between traced programs and the tools that read their traces.
// Bump kFormatVersion (spool_format.h) when a layout, an enumerator's value or a meaning below changes.
//
// A record fills one slot of 64 bytes, one cache line, so two threads never share one and a torn write tears
// one record only. Integers are in the machine's byte order (SpoolHeader::endian tells it).
//
//   offset  bytes  field
//        0      4  commit       salt << 8 | state; state empty: not committed. Stored last, with release order
//        4      1  kind         RecordKind
//        5      1  family       Family
//        6      1  mode         Mode
//        7      1  flags        Flags, or for a text slot how many of its bytes count
//        8      8  begin        ticks before the kernel call; for a release, before the real unlock
//       16      8  end          ticks after the kernel call; 0 while pending
//       24      4  error        errno of the call, 0: success
//       28      4  fd           descriptor
//       32      4  file         FileBody::id, unique in the spool; 0: unknown
//       36      4  description  open file description, unique in the spool; 0: unknown
//       40      8  a            see RecordKind
//       48      8  b            see RecordKind
//       56      8  caller       return address of the lock call; 0: unknown
//
// A pending record is published before the call and completed in place after it: a reader sees who is blocked
// now, and SIGKILL loses nothing that was published. Text and bodies that do not fit follow in text slots
// (kind `text`, 56 payload bytes each, numbered from 0 in `family` | `mode` << 8) directly behind their record.
//
// Threads: a record is written by one thread and read by any; only `commit` orders them. Signals: plain data.
#ifndef PLANLOOP_LOCKCORE_WIRE_RECORD_H
#define PLANLOOP_LOCKCORE_WIRE_RECORD_H

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace planloop::wire {

enum class Owner : std::uint8_t { description, process, thread };

enum class Family : std::uint8_t {
#define PLANLOOP_LOCK_FAMILY(name, shown, owner, ranged) name,
#include "lockcore/wire/lock_families.inc"
#undef PLANLOOP_LOCK_FAMILY
};

struct FamilyTraits {
    const char *name;
    Owner owner;
    bool ranged;
};

inline constexpr FamilyTraits kFamilies[] = {
#define PLANLOOP_LOCK_FAMILY(name, shown, owner, ranged) {#shown, Owner::owner, ranged},
#include "lockcore/wire/lock_families.inc"
#undef PLANLOOP_LOCK_FAMILY
};
inline constexpr std::size_t kFamilyCount = sizeof(kFamilies) / sizeof(kFamilies[0]);

enum class Mode : std::uint8_t { none, shared, exclusive };

// What a record tells, and what `a` and `b` mean in it. The order is the wire format: append only.
enum class RecordKind : std::uint8_t {
    none,
    acquire,    // a lock call; a, b: first byte and length of the range (length 0: to the end of the file)
    release,    // an unlock call; a, b: the range
    close,      // this process lets go of a descriptor that a lock call or a known hold is about; a: CloseCause
    duplicate,  // such a descriptor got a second number in this process; a: the new number
    fork,       // this process made a child that shares its descriptors; a: the child's pid (0: not known)
    exec,       // this process image is about to be replaced; annulled when the exec fails
    exit,       // this process is about to end by itself; a: ExitCause, b: the exit status
    process,    // first record of a process image: ProcessBody and four texts follow
    file,       // first sight of a file: FileBody and its path follow
    sharer,     // another process has the description of fd, too; a: its pid, b: its descriptor there; with the text of
             // `process` about it. A supervisor's without a description: of one that records nothing, above some that
             // do
    ended,  // written by a supervisor: a process is gone; a: its pid, b: wait status, -1 when not known, kGoneUnwatched
            // end: its start time in clock ticks since boot (/proc/PID/stat field 22), 0 when not known
    wait_child,  // a call that waits for a child; pending while it waits; a: pid argument, b: the child whose end it
                 // told (0: not known which, or other news; kNoChildLeft; -1: it failed)
    not_traced,  // a program was started in which the shim cannot be; a: its pid (0: not known), b: NotTracedCause;
                 // one text follows: its path
    text,        // payload of the record before it
    trace,       // from here on this thread's records are about an operation; two texts follow: trace id and operation,
                 // both empty: those of the process again
    module,      // first sight of a program or library that makes lock calls in this process image: ModuleBody and its
                 // path follow; where it overlaps an earlier one, that one was unloaded
    child,       // this process made a child by then: by vfork or spawn, which say otherwise what it shares, or by fork
                 // before this process recorded anything; a: its pid
    last = child,
};

// A wait failed since no child is left of those that it was about (ECHILD): all of them are over, and nobody is told
// how when the parent ignores SIGCHLD.
inline constexpr std::int32_t kNoChildLeft = -10;

// Wait status of an `ended` record whose time is only when a supervisor found the process gone.
inline constexpr std::int64_t kGoneUnwatched = -2;

enum class State : std::uint8_t {
    empty = 0,
    pending = 1,    // published; the call has not come back yet
    complete = 2,   // final
    annulled = 3,   // stamped ahead of a call that then failed: as if never written
    abandoned = 4,  // the thread left the call without coming back (cancellation, longjmp); end: seen at
};

// Flags of acquire and release records, and kRepeated.
enum Flags : std::uint8_t {
    kBlocking = 1,       // the call may wait
    kSyscall = 4,        // made through syscall(2)
    kBadArguments = 8,   // the kernel would not know what to lock: command, pointer or range is invalid
    kInstrumented = 16,  // recorded by the program itself, which links lockcore
    kRepeated = 32,      // process, file, trace: said before, in a part of a ring that may be overwritten
};

enum class CloseCause : std::uint8_t { close, replaced, close_range, stream, exec, exit, unseen };
enum class ExitCause : std::uint8_t { exit, immediate, quick, aborted };
enum class NotTracedCause : std::uint8_t {
    static_binary,
    setuid,
    other_architecture,
    not_attached,  // it could have been, but its environment or the way it was started kept us out
    sandboxed,     // it forbade itself system calls, see seccomp(2)
    go_without_libc,
    other_user,     // may not write to the session, nor may what it starts
    above_the_run,  // the supervisor itself, or who started it: only that its exit is not recorded
};

struct alignas(64) Record {
    std::atomic<std::uint32_t> commit;
    RecordKind kind;
    Family family;
    Mode mode;
    std::uint8_t flags;
    std::uint64_t begin;
    std::uint64_t end;
    std::int32_t error;
    std::int32_t fd;
    std::uint32_t file;
    std::uint32_t description;
    std::uint64_t a;
    std::uint64_t b;
    std::uint64_t caller;
};
static_assert(sizeof(Record) == 64 && offsetof(Record, begin) == 8 && offsetof(Record, error) == 24 &&
              offsetof(Record, file) == 32 && offsetof(Record, a) == 40 && offsetof(Record, caller) == 56);
static_assert(std::atomic<std::uint32_t>::is_always_lock_free);

// A text slot shares the first eight bytes with Record.
inline constexpr std::size_t kTextBytes = 56;
struct alignas(64) TextSlot {
    std::atomic<std::uint32_t> commit;
    RecordKind kind;  // text
    std::uint8_t index_low;
    std::uint8_t index_high;
    std::uint8_t used;
    char bytes[kTextBytes];
};
static_assert(sizeof(TextSlot) == sizeof(Record) && offsetof(TextSlot, bytes) == 8);

// The payload of a record with text is a body of fixed size, then strings, each ended by a zero byte.
// `Record::end` holds the payload's length in bytes.
struct ProcessBody {   // strings: command line (arguments parted by spaces), executable, working folder,
    std::int32_t pid;  // trace id, operation
    std::int32_t parent_pid;
    std::uint64_t start_time;      // clock ticks since boot, /proc/PID/stat field 22: tells a recycled pid; 0: unknown
    std::uint32_t parent_process;  // the image that forked this one, or that it replaced by exec; 0: unknown
    std::uint32_t uid;
    std::uint32_t replaced_by_exec;  // 1: parent_process was the same pid
    std::uint32_t reserved;
};
static_assert(sizeof(ProcessBody) == 32);

struct FileBody {  // strings: path, empty when unknown; for a lock that is no file (mode 0): its id, as in JSON
    std::uint32_t id;
    std::uint32_t mode;        // st_mode
    std::uint64_t device;      // st_dev
    std::uint64_t inode;       // st_ino
    std::uint64_t generation;  // FS_IOC_GETVERSION, else birth time in ns, else 0: inode numbers are reused at once
};
static_assert(sizeof(FileBody) == 32);

struct ModuleBody {                // string: path as the loader has it, empty for the program itself
    std::uint64_t begin, end;      // addresses
    std::uint64_t bias;            // address less this: the address in the file's own numbering
    std::uint32_t build_id_bytes;  // 0: it has none
    std::uint32_t reserved;
    unsigned char build_id[32];  // NT_GNU_BUILD_ID; of a longer one the first bytes
};
static_assert(sizeof(ModuleBody) == 64);

constexpr std::uint32_t commit_word(std::uint32_t salt, State state) noexcept {
    return salt << 8 | static_cast<std::uint32_t>(state);
}
constexpr State commit_state(std::uint32_t commit) noexcept {
    return static_cast<State>(commit & 0xff);
}
constexpr std::uint32_t commit_salt(std::uint32_t commit) noexcept {
    return commit >> 8;
}

}  // namespace planloop::wire

#endif
