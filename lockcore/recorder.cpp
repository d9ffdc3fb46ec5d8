#include "lockcore/recorder.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>
#include <string_view>
#include <utility>

#include "lockcore/recorder_process.h"
#include "lockcore/wire/file_identity.h"

#if defined(__x86_64__)
#include <x86intrin.h>
#endif

namespace planloop::recording {

constinit thread_local Writer writer;
std::atomic<const wire::ShimLink *> shim_in_process{&kShimUnknown};

namespace {

std::uint64_t ticks_after(const wire::SpoolWriter &spool, Clock clock) noexcept {
#if defined(__x86_64__)
    if (clock == Clock::memory) _mm_lfence();
#endif
    static_cast<void>(clock);
    return spool.ticks();
}

// A thread that has not recorded in this process yet, or before another session was chosen.
void join(Writer &me, std::uint32_t mark) noexcept {
    const ProcessWriter &process = process_writer();
    if (me.own_mark != mark) me.own.forget();
    me.own_mark = me.mark = mark;
    me.trace_serial = 0;
    me.ring_chunk = 0;
    me.shim = process.shim;
    me.stream = nullptr;
    if (process.shim != nullptr) {
        me.stream = process.shim->stream(&me.spool, &me.who);
    } else if (process.spool != nullptr) {
        me.stream = &me.own;
        me.spool = process.spool;
        me.who = process.identity;
        me.who.tid = gettid();
    }
    me.records = me.stream != nullptr;
}

// From here on the thread's records carry another operation.
void write_trace(Writer &me) noexcept {
    const bool first = me.trace_serial == 0;
    me.trace_serial = trace_serial;
    if (!me.records) return;
    const OperationTrace trace = current_trace();
    if (first && trace.trace_id.empty() && trace.operation.empty()) return;
    const wire::TextPiece pieces[] = {
        {trace.trace_id.c_str(), trace.trace_id.size() + 1},
        {trace.operation.c_str(), trace.operation.size() + 1},
    };
    wire::Record *record = me.stream->claim_with_text(*me.spool, me.who, pieces, 2);
    if (record == nullptr) return;
    record->kind = wire::RecordKind::trace;
    record->begin = me.spool->ticks();
    me.stream->publish(record, wire::State::complete);
}

}  // namespace

Writer *enter_slowly() noexcept {
    Writer &me = writer;
    const std::uint32_t mark = attach();
    if (mark == 0) return nullptr;
    if (me.mark != mark) join(me, mark);
    if (me.trace_serial != trace_serial) write_trace(me);
    return me.records ? &me : nullptr;
}

LockName LockName::file(wire::Family family, int fd, std::string path) {
    LockName name(family, std::move(path));
    name.fd_ = fd;
    return name;
}

LockName LockName::mutex(const void *address, std::string label) {
    LockName name(wire::Family::mutex, std::move(label));
    name.address_ = address;
    return name;
}

LockName LockName::named(std::string name) {
    return {wire::Family::named_mutex, std::move(name)};
}

LockName::LockName(LockName &&other) noexcept
    : family_(other.family_), fd_(other.fd_), address_(other.address_), path_(std::move(other.path_)) {}

// Gives the lock a number in the spool and says there what it is.
std::uint32_t LockName::announce() noexcept {
    Writer &me = writer;
    std::uint32_t number = 0;
    if (me.shim != nullptr && family_ == wire::Family::posix_thread) number = me.shim->posix_file(fd_);
    if (number == 0) {
        number = me.spool->header().next_file.fetch_add(1, std::memory_order_relaxed);
        if (!describe(number, 0)) return 0;  // counted; the next event tries again
    }
    known_.store(std::uint64_t{me.mark} << 32 | number, std::memory_order_relaxed);
    return number;
}

bool LockName::describe(std::uint32_t number, std::uint8_t flags) noexcept {
    Writer &me = writer;
    wire::FileBody body{};
    std::string id;
    struct stat status {};
    if (fd_ >= 0 && wire::raw_syscall(SYS_fstat, fd_, &status) == 0) {
        body.mode = status.st_mode;
        body.device = status.st_dev;
        body.inode = status.st_ino;
        body.generation = wire::file_generation(fd_, status.st_mode);
    } else if (family_ == wire::Family::mutex) {
        id = fmt::format("mutex:{}:{:#x}", getpid(), reinterpret_cast<std::uintptr_t>(address_));
    } else {
        id = fmt::format("{}:{}", wire::kFamilies[static_cast<std::size_t>(family_)].name, path_);
    }
    body.id = number;
    const wire::TextPiece pieces[] = {
        {&body, sizeof(body)}, {path_.c_str(), path_.size() + 1}, {id.c_str(), id.size() + 1}};
    wire::Record *record = me.stream->claim_with_text(*me.spool, me.who, pieces, 3);
    if (record == nullptr) return false;
    record->kind = wire::RecordKind::file;
    record->family = family_;
    record->flags = flags;
    record->file = number;
    record->begin = me.spool->ticks();
    me.stream->publish(record, wire::State::complete);
    return true;
}

// In a ring: sees to it that the next record goes into a chunk that also tells of the process, its operation and the
// lock. False: it cannot be.
bool Call::introduce(Writer &me, LockName &lock, std::uint32_t file) noexcept {
    constexpr int kAttempts = 4;  // what is said here may fill the chunk
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        const std::uint64_t chunk = me.stream->chunk_with_room(*me.spool, me.who, 1);
        if (chunk == 0) return false;
        std::uint32_t &known = me.ring_locks[file % Writer::kRingLocks];
        if (chunk == me.ring_chunk && known == file) return true;
        if (chunk != me.ring_chunk) {
            me.ring_chunk = chunk;
            told_modules().clear();
            std::fill(std::begin(me.ring_locks), std::end(me.ring_locks), 0);
            if (me.shim != nullptr) {
                me.shim->introduce();
            } else {
                repeat_introduction();
            }
            write_trace(me);
        } else {
            known = file;
            lock.describe(file, wire::kRepeated);
        }
    }
    return false;
}

wire::Record *Call::write(Writer &me, LockName &lock, wire::RecordKind kind, wire::Mode mode, const void *caller,
                          wire::State state, bool blocking) noexcept {
    const std::uint32_t file = lock.number();
    if (wire::ToldModules &told = told_modules(); !told.covers(caller))
        wire::tell_module(*me.stream, *me.spool, me.who, told, caller);
    if (me.spool->is_ring() && !introduce(me, lock, file)) return nullptr;
    wire::Record *record = me.stream->claim(*me.spool, me.who);
    if (record == nullptr) return nullptr;
    record->kind = kind;
    record->family = lock.family_;
    record->mode = mode;
    record->flags = static_cast<std::uint8_t>(wire::kInstrumented | (blocking ? wire::kBlocking : 0));
    record->fd = lock.fd_;
    record->file = file;
    record->caller = reinterpret_cast<std::uint64_t>(caller);
    record->begin = me.spool->ticks();
    me.stream->publish(record, state);
    return record;
}

// A lock without a path or a name of its own goes by its address.
LockNote Call::note(const LockName &lock, wire::Mode mode) noexcept {
    return {&lock, lock.family_, mode, lock.path_.c_str()};
}

void Call::tell_held() noexcept {
    note_held(note(*std::exchange(lock_, nullptr), mode_));
}

void Call::tell_failed(int error) noexcept {
    note_failed(note(*std::exchange(lock_, nullptr), mode_), error);
}

Call::Call(LockName *lock, wire::Mode mode, bool blocking, Clock clock, const void *caller) noexcept
    : mode_(mode), clock_(clock) {
    if (locks_are_watched() && lock != nullptr) {
        lock_ = lock;
        note_wait(note(*lock, mode));
    }
    Writer *me = lock != nullptr ? enter() : nullptr;
    if (me == nullptr) return;
    record_ = write(*me, *lock, wire::RecordKind::acquire, mode, caller, wire::State::pending, blocking);
    spool_ = me->spool;
    stream_ = me->stream;
    if (record_ != nullptr) ++stream_->unfinished;
}

void Call::conclude(int error, wire::State state) noexcept {
    if (record_ == nullptr) return;
    record_->end = ticks_after(*spool_, clock_);
    record_->error = error;
    wire::StreamWriter::conclude(record_, state);
    if (stream_->unfinished != 0) --stream_->unfinished;  // a child that was forked meanwhile has none
    record_ = nullptr;
}

void Call::release(LockName *lock, wire::Mode mode, const void *caller) noexcept {
    if (locks_are_watched() && lock != nullptr) note_released(note(*lock, mode));
    Writer *me = lock != nullptr ? enter() : nullptr;
    if (me == nullptr) return;
    write(*me, *lock, wire::RecordKind::release, mode, caller, wire::State::complete, false);
}

}  // namespace planloop::recording
