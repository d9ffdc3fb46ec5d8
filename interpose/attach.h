// The shim's state in a process, and how a thread comes to record.
//
// Nothing is opened or mapped before the first lock call (or the first fork, see inherited.h): a process that takes no
// lock starts as fast as it would without us. It attaches when it has something to say: a lock call, a shared lock, or
// that it was told of the end of a child that recorded. attach() gives the process image its number in the spool and
// writes its `process` record; a thread's first record claims its first chunk.
//
// A forked child must not write into its parent's chunks, however it was forked. ForkPage tells: the kernel zeroes it
// in the child (madvise(2) MADV_WIPEONFORK), so the one comparison that every hook makes fails there and the child
// attaches anew. A vfork child shares the page, but its hook left a mark in the thread: see Thread::vfork_parent.
//
// Signals: everything here is async-signal-safe; slow paths block all signals. errno is never changed.
#ifndef PLANLOOP_INTERPOSE_ATTACH_H
#define PLANLOOP_INTERPOSE_ATTACH_H

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "lockcore/wire/module_note.h"
#include "lockcore/wire/stream_writer.h"

namespace planloop::shim {

inline constexpr std::uint32_t kRememberedChildren = 64;
inline constexpr std::uint32_t kRingFiles = 32;

struct ForkPage {
    std::atomic<std::uint32_t> image;          // number of this process image; 0: not attached
    std::atomic<std::uint32_t> attaching;      // tid that attaches now; 0: nobody
    std::atomic<std::uint32_t> opening;        // spin lock of open_spool()
    std::atomic<std::uint32_t> exited;         // an exit record was written
    std::atomic<std::uint32_t> pid_namespace;  // see share_table.h; 0: not asked for yet
    std::atomic<std::uint32_t> next_child;
    std::atomic<std::int32_t> children[kRememberedChildren];  // the latest that are not known to have ended
    wire::ToldModules modules;
};

struct Process {
    std::atomic<ForkPage *> page = nullptr;
    std::atomic<bool> failed = false;  // the session cannot be recorded into: do not try again
    wire::WriterIdentity identity;
    std::atomic<std::int32_t> own_pid = 0;    // once a child runs in our memory with descriptors of its own; see clone
    std::atomic<int> open_error = 0;          // why the spool could not be opened
    std::atomic<std::uint32_t> unopened = 0;  // events that were lost for want of a descriptor to open it with
    std::uint64_t trust_ticks = 0;            // see descriptors.h
    // The PID namespace that this process was in, whose number in it is asked_by: see pid_namespace().
    std::atomic<std::uint32_t> pid_namespace = 0;
    std::atomic<std::int32_t> asked_by = 0;
    std::atomic<std::uint32_t> forks = 0;    // counted up to two
    std::atomic<bool> out_of_reach = false;  // the user that this has become may not open the spool
    wire::SpoolWriter spool;                 // last, since most of it is seldom touched
};

struct PendingCall {
    wire::Record *record;  // nullptr: being written
    std::uintptr_t frame;
};
inline constexpr std::uint32_t kNestedCalls = 4;

// Plain data in initial-exec TLS: usable before any constructor, in a signal handler, on a 16 KiB stack.
struct Thread {
    wire::StreamWriter stream;
    std::uint32_t image;  // the process image that `stream` belongs to
    std::int32_t tid;
    PendingCall calls[kNestedCalls];  // that have not come back, the outermost first: signal handlers lock, too
    std::uint32_t depth;              // how many; what lies deeper than there is room for is not closed when abandoned
    wire::Record *releasing;          // of an unlock that has not come back
    std::uint64_t trusted_ids;        // what `trusted_fd` was known to be when the last call came back
    std::uint64_t trusted_until;
    std::int32_t trusted_fd;
    std::int32_t suppressed;    // above 0: the program records its lock calls itself, see shim_link.h of wire
    std::int32_t speaks_for;    // pid of the parent in whose name a vfork child records; 0: itself
    std::int32_t vfork_parent;  // pid that began a vfork on this thread: we may be its child; 0: none
    std::int32_t vfork_child;   // pid of its child that took locks along into another program; 0: none
    std::int32_t vfork_told;    // pid of its latest child that was about to become another program
    bool vfork_copied;          // the child copied a descriptor
    std::uint64_t ring_chunk;   // the chunk of a ring in which the process has been introduced; see ring.h
    std::uint32_t ring_files[kRingFiles];  // files that have been introduced in it, each in the place of its number

    wire::WriterIdentity who(const Process &process) const noexcept { return {image, process.identity.pid, tid}; }
};

extern Process process;
// constinit: a thread-local variable that may need a constructor is asked for it at each use.
extern constinit thread_local Thread thread __attribute__((tls_model("initial-exec")));

bool enter_slowly(Thread &me) noexcept;

// Whether this call can be recorded; attaches the process and the thread when they are not.
inline bool enter(Thread &me) noexcept {
    const ForkPage *page = process.page.load(std::memory_order_acquire);
    if (__builtin_expect(page != nullptr && me.image != 0 && me.vfork_parent == 0 &&
                             page->image.load(std::memory_order_acquire) == me.image,
                         1)) {
        return true;
    }
    return enter_slowly(me);
}

// Whether this process image has attached already, without attaching it.
bool attached(Thread &me) noexcept;

// Opens the spool without attaching; false when there is none to open, and none is made.
enum class Missing : bool { is_made, stays_missing };
bool open_spool(Missing missing = Missing::is_made) noexcept;

// True in the child of a vfork (or clone with CLONE_VM) that has not exec'd: its descriptors are not ours to talk
// about.
bool in_vfork_child(Thread &me) noexcept;

// One record that is complete when written: everything but lock calls.
struct Note {
    wire::RecordKind kind;
    wire::Family family = {};
    std::int32_t fd = -1;
    std::uint32_t file = 0;
    std::uint32_t description = 0;
    std::uint64_t a = 0;
    std::uint64_t b = 0;
};
// Stamped now; nullptr: dropped. The caller may annul it later with StreamWriter::conclude.
wire::Record *write_note(Thread &me, const Note &note) noexcept;

// Asks the supervisor to watch for the end of a process that shares a lock of ours.
void announce_sharing(std::int32_t pid) noexcept;

}  // namespace planloop::shim

#endif
