// Records the lock calls of a program that links lockcore, where the preloaded library records those of programs that
// do not: in the session's spool, as they happen, in the form of lockcore/wire/record.h.
//
// Into the spool and not as lines of planloop.jsonl: one line costs a write(2) and a microsecond of formatting, three
// of them four times what an uncontended FileLock costs, while a record is 64 bytes of memory that a SIGKILL cannot
// take back. `planloop dev locks` reads the spool; a supervisor (`dev run`) or `dev export-logs` makes the lines.
//
// The session is that of record_into(), else $PLANLOOP_SESSION; with neither, or with PLANLOOP_NO_RECORDING=1, nothing
// is recorded and a lock costs two loads more. Under the preloaded library its stream is used (wire/shim_link.h).
//
// A thread's records carry its operation (operation_trace.h). A forked child records as a process of its own.
//
// Threads: everything here may be called by any thread; after a thread's first record it is wait-free and makes no
// system call while its chunk lasts. Signals: not async-signal-safe. Errors: what cannot be recorded is counted in the
// spool and the lock works on; recording_problem() says why nothing is recorded at all.
#ifndef PLANLOOP_LOCKCORE_RECORDER_H
#define PLANLOOP_LOCKCORE_RECORDER_H

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <string>

#include "lockcore/operation_trace.h"
#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/thread_locks.h"
#include "lockcore/wire/shim_link.h"

namespace planloop {

// From now on the process records into this session: call it before other threads lock. Under the preloaded library
// that library's session stays.
Result<void> record_into(const Session &session);
// One line; empty when the process records or was not asked to.
std::string recording_problem();

namespace recording {

// What a lock is called in the spool. Lives as long as the lock.
class LockName {
  public:
    // A file that `fd`, which stays open, is open on.
    static LockName file(wire::Family family, int fd, std::string path);
    // Something in this process's memory; `label` is for people and may be empty.
    static LockName mutex(const void *address, std::string label);
    // Something that other processes know by the same name.
    static LockName named(std::string name);

    LockName(LockName &&other) noexcept;
    LockName &operator=(LockName &&) = delete;

    wire::Family family() const noexcept { return family_; }

  private:
    friend class Call;
    LockName(wire::Family family, std::string path) : family_(family), path_(std::move(path)) {}
    std::uint32_t number() noexcept {
        const std::uint64_t known = known_.load(std::memory_order_relaxed);
        return static_cast<std::uint32_t>(known >> 32) == thread_mark() ? static_cast<std::uint32_t>(known)
                                                                        : announce();
    }
    static std::uint32_t thread_mark() noexcept;
    std::uint32_t announce() noexcept;
    bool describe(std::uint32_t number, std::uint8_t flags) noexcept;

    wire::Family family_;
    int fd_ = -1;
    const void *address_ = nullptr;
    std::string path_;
    std::atomic<std::uint64_t> known_ = 0;  // process mark << 32 | number in the spool
};

// The thread's way to the spool.
struct Writer {
    wire::StreamWriter *stream = nullptr;
    wire::SpoolWriter *spool = nullptr;
    wire::WriterIdentity who;
    const wire::ShimLink *shim = nullptr;  // nullptr: not preloaded, or of a version that is not known
    std::uint32_t mark = 0;                // process mark for which all this holds; 0: none
    std::uint32_t trace_serial = 0;
    bool records = false;
    wire::StreamWriter own;
    std::uint32_t own_mark = 0;  // process mark under which `own` was begun

    // Of a ring (wire/spool_format.h): the chunk in which process and operation have been introduced, and the locks
    // that have been, each in the place of its number.
    static constexpr std::uint32_t kRingLocks = 32;
    std::uint64_t ring_chunk = 0;
    std::uint32_t ring_locks[kRingLocks] = {};
};
extern constinit thread_local Writer writer;

// A number of the present process, which a forked child does not share; 0: not given yet.
extern std::atomic<const std::atomic<std::uint32_t> *> process_mark;

Writer *enter_slowly() noexcept;

// nullptr: nothing is recorded.
inline Writer *enter() noexcept {
    Writer &me = writer;
    const std::uint32_t mark = process_mark.load(std::memory_order_acquire)->load(std::memory_order_relaxed);
    if (__builtin_expect(me.mark == mark && mark != 0 && me.trace_serial == trace_serial, 1)) {
        return me.records ? &me : nullptr;
    }
    return enter_slowly();
}

inline std::uint32_t LockName::thread_mark() noexcept {
    return writer.mark;
}

// Around locks that live in memory the counter must be read after the lock was taken, and a processor runs ahead.
enum class Clock : std::uint8_t { system_call, memory };

// One acquisition. Published by the constructor, completed by acquired() or failed(); if neither is called, because an
// exception or a cancelled thread leaves the call, it counts as abandoned.
class Call {
  public:
    // `lock` nullptr: this call is not recorded.
    Call(LockName *lock, wire::Mode mode, bool blocking, Clock clock, const void *caller) noexcept;
    ~Call() {
        if (record_ != nullptr) conclude(0, wire::State::abandoned);
        if (__builtin_expect(lock_ != nullptr, 0)) tell_failed(ECANCELED);
    }
    Call(const Call &) = delete;
    Call &operator=(const Call &) = delete;

    void acquired() noexcept {
        conclude(0, wire::State::complete);
        if (__builtin_expect(lock_ != nullptr, 0)) tell_held();
    }
    void failed(int error) noexcept {
        conclude(error, wire::State::complete);
        if (__builtin_expect(lock_ != nullptr, 0)) tell_failed(error);
    }

    // The lock is about to be given back. Call it before it is.
    static void release(LockName *lock, wire::Mode mode, const void *caller) noexcept;

  private:
    void conclude(int error, wire::State state) noexcept;
    static LockNote note(const LockName &lock, wire::Mode mode) noexcept;
    void tell_held() noexcept;
    void tell_failed(int error) noexcept;
    static bool introduce(Writer &me, LockName &lock, std::uint32_t file) noexcept;
    static wire::Record *write(Writer &me, LockName &lock, wire::RecordKind kind, wire::Mode mode, const void *caller,
                               wire::State state, bool blocking) noexcept;

    wire::Record *record_ = nullptr;
    const wire::SpoolWriter *spool_ = nullptr;
    LockName *lock_ = nullptr;  // where locks_are_watched()
    wire::Mode mode_;
    wire::StreamWriter *stream_ = nullptr;
    Clock clock_;
};

// The preloaded library in this process; nullptr: there is none. Until the first look: kShimUnknown.
inline constexpr wire::ShimLink kShimUnknown{};
extern std::atomic<const wire::ShimLink *> shim_in_process;

// While it lives, the preloaded library leaves the thread's lock calls to us.
class Unhooked {
  public:
    Unhooked() noexcept : shim_(shim_in_process.load(std::memory_order_relaxed)) {
        if (__builtin_expect(shim_ == nullptr, 1)) return;
        if (shim_ == &kShimUnknown) {
            enter_slowly();
            shim_ = shim_in_process.load(std::memory_order_relaxed);
            if (shim_ == &kShimUnknown) shim_ = nullptr;
        }
        if (shim_ != nullptr) shim_->suppress(1);
    }
    ~Unhooked() {
        if (__builtin_expect(shim_ != nullptr, 0)) shim_->suppress(-1);
    }
    Unhooked(const Unhooked &) = delete;
    Unhooked &operator=(const Unhooked &) = delete;

  private:
    const wire::ShimLink *shim_;
};

}  // namespace recording
}  // namespace planloop

#endif
