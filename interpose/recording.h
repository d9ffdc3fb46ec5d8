// The two shapes of a recorded call: one that may take a lock, one that gives it back. Both leave errno and the result
// exactly as the real function made them.
//
// Order is what makes traces true: an acquisition is published before the real call and completed after it, a release
// is stamped and published before the real call. So a release never sorts after the acquisition that it allowed.
//
// No frame here is noexcept: a thread that is cancelled inside the real call unwinds through it.
#ifndef PLANLOOP_INTERPOSE_RECORDING_H
#define PLANLOOP_INTERPOSE_RECORDING_H

#include <cerrno>
#include <cstdint>

#include "interpose/attach.h"
#include "interpose/descriptors.h"
#include "interpose/ring.h"
#include "interpose/shares.h"

namespace planloop::shim {

struct LockCall {
    wire::Family family;
    wire::Mode mode;     // none: an unlock
    std::uint8_t flags;  // wire::Flags
    int fd;
    std::uint64_t start;
    std::uint64_t length;
    void *caller;
};

inline void fill(wire::Record &record, wire::RecordKind kind, const LockCall &call, Identity identity,
                 std::uint64_t now) noexcept {
    record.kind = kind;
    record.family = call.family;
    record.mode = call.mode;
    record.flags = call.flags;
    record.begin = now;
    record.fd = call.fd;
    record.file = identity.file;
    record.description = identity.description;
    record.a = call.start;
    record.b = call.length;
    record.caller = reinterpret_cast<std::uint64_t>(call.caller);
}

// The slot's page, or a chunk for it, may just have been made. (A chunk's header lies before its first slot.)
inline bool is_first_in_page(const wire::Record *slot) noexcept {
    return (reinterpret_cast<std::uintptr_t>(slot) & (wire::kPageBytes - 1)) <= wire::kSlotBytes;
}

// False when the call is the first from its program or library, which is told now.
inline bool caller_was_told(Thread &me, const void *caller) noexcept {
    wire::ToldModules &told = process.page.load(std::memory_order_relaxed)->modules;
    if (__builtin_expect(told.covers(caller), 1)) return true;
    wire::tell_module(me.stream, process.spool, me.who(process), told, caller);
    return false;
}

// A call that this thread left without coming back (cancellation, longjmp) is still pending. The stack tells it from a
// call that a signal handler has interrupted: the handler's frames lie deeper.
inline void close_abandoned(Thread &me, std::uintptr_t frame, std::uint64_t now) noexcept {
    while (__builtin_expect(me.depth != 0, 0)) {
        const std::uint32_t top = (me.depth < kNestedCalls ? me.depth : kNestedCalls) - 1;
        const PendingCall call = me.calls[top];
        if (call.record == nullptr || frame < call.frame) return;
        me.depth = top;
        if (top == 0) me.stream.unfinished = 0;
        me.calls[top].record = nullptr;
        call.record->end = now;
        wire::StreamWriter::conclude(call.record, wire::State::abandoned);
    }
}

// After success: what the record alone cannot tell.
inline void note_acquired(Thread &me, const LockCall &call, Identity identity) noexcept {
    if (call.family == wire::Family::posix) {
        const Descriptor *locked = find_descriptor(call.fd);
        if (locked != nullptr && locked->posix_noted.load(std::memory_order_relaxed) == 0) {
            note_posix_lock(call.fd, identity.file);
        }
        return;
    }
    const Descriptor *descriptor = find_descriptor(call.fd);
    if (descriptor != nullptr && descriptor->provenance.load(std::memory_order_relaxed) == Descriptor::named) {
        look_for_sharers(me, call.fd, call.family);
    }
}

// Makes `record`, which is filled, visible while `real_call` runs, and completes it.
template <class Real>
__attribute__((always_inline)) inline auto run_pending(Thread &me, wire::Record *record, std::uintptr_t frame,
                                                       Real real_call) {
    me.stream.publish(record, wire::State::pending);
    const std::uint32_t depth = me.depth;
    const std::uint32_t unfinished = me.stream.unfinished;
    me.stream.unfinished = unfinished + 1;
    me.depth = depth + 1;  // first: a signal handler's call goes behind this one
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (depth < kNestedCalls) me.calls[depth] = {record, frame};

    const auto result = real_call();

    record->end = process.spool.ticks();
    record->error = result < 0 ? errno : 0;
    wire::StreamWriter::conclude(record, wire::State::complete);
    if (depth < kNestedCalls) me.calls[depth].record = nullptr;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    me.depth = depth;
    me.stream.unfinished = unfinished;
    return result;
}

template <class Real>
__attribute__((always_inline)) inline auto record_acquire(const LockCall &call, Real real_call) {
    Thread &me = thread;
    if (me.suppressed != 0 || !enter(me)) return real_call();
    const auto frame = reinterpret_cast<std::uintptr_t>(__builtin_frame_address(0));
    std::uint64_t now = process.spool.ticks();
    close_abandoned(me, frame, now);
    const bool trusted = me.trusted_fd == call.fd && now - me.trusted_until < process.trust_ticks;
    const Identity identity = identify(me, call.fd, call.family, now);
    const bool told = caller_was_told(me, call.caller);
    wire::Record *record = claim_for_call(me, call.fd, identity.file);
    if (__builtin_expect(record == nullptr, 0)) {
        const auto unrecorded = real_call();
        trust(me, call.fd, identity, process.spool.ticks());
        return unrecorded;
    }
    // What the recording itself waited for, a page on a slow disk for one, is no wait for the lock.
    if (!told || !trusted || is_first_in_page(record)) now = process.spool.ticks();
    fill(*record, wire::RecordKind::acquire, call, identity, now);
    const auto result = run_pending(me, record, frame, real_call);
    if (result >= 0) note_acquired(me, call, identity);
    trust(me, call.fd, identity, record->end);
    return result;
}

template <class Real>
__attribute__((always_inline)) inline auto record_release(const LockCall &call, Real real_call) {
    Thread &me = thread;
    if (me.suppressed != 0 || !enter(me)) return real_call();
    const Descriptor *descriptor = find_descriptor(call.fd);
    const Identity identity = descriptor != nullptr && !to_be_named(*descriptor, call.family)
                                  ? Identity::unpack(descriptor->ids.load(std::memory_order_relaxed))
                                  : identify_slowly(me, call.fd, call.family);
    caller_was_told(me, call.caller);
    wire::Record *record = claim_for_call(me, call.fd, identity.file);
    if (__builtin_expect(record == nullptr, 0)) return real_call();
    fill(*record, wire::RecordKind::release, call, identity, process.spool.ticks());
    me.stream.publish(record, wire::State::complete);

    const std::uint32_t unfinished = me.stream.unfinished;
    me.releasing = record;
    me.stream.unfinished = unfinished + 1;
    const auto result = real_call();
    me.releasing = nullptr;

    if (result < 0) record->error = errno;
    me.stream.unfinished = unfinished;
    trust(me, call.fd, identity, process.spool.ticks());
    return result;
}

}  // namespace planloop::shim

#endif
