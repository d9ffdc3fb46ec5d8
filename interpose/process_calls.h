// What the hooks on process calls share with those on syscall().
#ifndef PLANLOOP_INTERPOSE_PROCESS_CALLS_H
#define PLANLOOP_INTERPOSE_PROCESS_CALLS_H

#include <pthread.h>

#include "interpose/lock_calls.h"
#include "interpose/shares.h"

namespace planloop::shim {

// Before a child is made: maps the spool's header, so that parent and child see the mask of inherited locks, and tracks
// what is shared already. True when the child will share descriptors that matter.
bool prepare_fork() noexcept;
// The same, and notes which descriptors the child is about to share, since a lock may be taken on them later.
bool prepare_child() noexcept;

// Around the making of a child with memory of its own.
class ForkRecord {
  public:
    ForkRecord() noexcept;
    void finish(std::int32_t child) const noexcept;

  private:
    bool concerns_locks_ = false;
    std::uint64_t before_ = 0;
};

template <class Real>
auto record_fork(Real real_call) {
    const ForkRecord record;
    const auto child = real_call();
    record.finish(static_cast<std::int32_t>(child));
    return child;
}

// After a child was made: it may share descriptors on which no lock has been taken yet.
void remember_child(std::int32_t child) noexcept;

// Around the making of a child by other means than fork: spawn, or clone in the memory of this process.
class ChildRecord {
  public:
    ChildRecord() noexcept;
    void finish(std::int32_t child) const noexcept;

  private:
    bool recorded_ = false;
    std::uint64_t before_ = 0;
};

// Before the process ends by itself; recorded once.
void note_exit(wire::ExitCause cause, int status) noexcept;

// Whether this process may hold or share a lock, so that its waiting for a child can keep others waiting.
inline bool may_hold_locks() noexcept {
    return tracked_mask.load(std::memory_order_relaxed) != 0 || shared_about();
}

// A child that has ended may have locked what this process shares with it.
inline void adopt_from_child(Thread &me) noexcept {
    if (shared_about() && !in_vfork_child(me)) adopt_all();
}

// A child of whose end this process was told by a call that is not recorded while it waits: recorded if this process
// has attached or that child may have. `child` as waitpid(2) takes it; `reaped` as a wait_child record tells it.
void note_reaped(std::int64_t child, pid_t reaped) noexcept;
// The remembered children of whose end that call told; false: there were none.
bool forget_children(std::int64_t child, pid_t reaped) noexcept;

// A call that waits for a child: recorded as pending while it waits, by who may keep others waiting meanwhile, and by
// who has attached, whose children are put in order by it. `child` as waitpid(2) takes it; `reaped(result)` is the
// child that the call told the end of, as a wait_child record has it.
template <class Real, class Reaped>
auto record_child_wait(std::int64_t child, Real real_call, Reaped reaped) {
    Thread &me = thread;
    if ((!may_hold_locks() && !attached(me)) || in_vfork_child(me) || !prepare_fork() || !enter(me)) {
        const auto unrecorded = real_call();
        note_reaped(child, reaped(unrecorded));
        adopt_from_child(me);
        return unrecorded;
    }
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    const std::uint64_t now = process.spool.ticks();
    close_abandoned(me, frame, now);
    if (process.spool.is_ring()) introduce_in_chunk(me);
    wire::Record *record = me.stream.claim(process.spool, me.who(process));
    if (record == nullptr) return real_call();
    record->kind = wire::RecordKind::wait_child;
    record->fd = -1;
    record->a = static_cast<std::uint64_t>(child);
    record->begin = now;
    const auto waited = run_pending(me, record, frame, [&] {
        decltype(real_call()) result;
        pthread_cleanup_push(abandon_pending, nullptr);
        result = real_call();
        const pid_t ended = reaped(result);
        record->b = static_cast<std::uint64_t>(static_cast<std::int64_t>(ended));
        forget_children(child, ended);
        pthread_cleanup_pop(0);
        return result;
    });
    adopt_from_child(me);
    return waited;
}

// Before and after an exec. begin() records which tracked descriptors will be closed by it and that it is about to
// happen; failed() takes that back.
class ExecRecord {
  public:
    void begin() noexcept;
    void failed() noexcept;

  private:
    static constexpr int kMostNotes = 64;
    wire::Record *exec_ = nullptr;
    wire::Record *closes_[kMostNotes];  // what is closed beyond them stays closed in the trace
    int count_ = 0;
    bool begun_ = false;
};

}  // namespace planloop::shim

#endif
