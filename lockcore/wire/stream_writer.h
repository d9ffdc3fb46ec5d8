// Puts one thread's records into the chunks of a spool.
//
// claim(), publish() and conclude() are wait-free and make no system call while the chunk lasts. A thread's first
// record and a full chunk run begin_chunk() with all signals blocked, so that a signal handler that records finds
// either the old chunk or the new one. No errno, no cancellation point; async-signal-safe on the thread it belongs to.
#ifndef PLANLOOP_LOCKCORE_WIRE_STREAM_WRITER_H
#define PLANLOOP_LOCKCORE_WIRE_STREAM_WRITER_H

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "lockcore/wire/spool_writer.h"

namespace planloop::wire {

// Who writes: repeated in every chunk header.
struct WriterIdentity {
    std::uint32_t process = 0;  // number of the process image in this spool; 0: not attached
    std::int32_t pid = 0;
    std::int32_t tid = 0;
};

// A part of the text behind a record.
struct TextPiece {
    const void *data;
    std::size_t bytes;
};

// The stream of one thread. Plain data: it lives in initial-exec TLS and is usable before any constructor ran.
struct StreamWriter {
    // `count` adjoining slots, zero but for the first one's commit word; nullptr: dropped and counted.
    Record *claim(SpoolWriter &spool, const WriterIdentity &who, std::size_t count = 1) noexcept {
        Record *slot = nullptr;
        return claim_here(slot, count) ? slot : claim_elsewhere(slot, spool, who, count);
    }
    // The two halves of it: in the present chunk, else, when that is full, in a new one. In between `slot` is what was
    // taken.
    bool claim_here(Record *&slot, std::size_t count = 1) noexcept {
        const Chunk present = chunk();
        slot = advance(count);
        if (__builtin_expect(!present.holds(slot, count), 0)) return false;
        mark(slot, present.salt);
        return true;
    }
    Record *claim_elsewhere(Record *slot, SpoolWriter &spool, const WriterIdentity &who,
                            std::size_t count = 1) noexcept;

    // A record with text behind it, everything filled but the record's own fields; its `end` tells the text's length.
    Record *claim_with_text(SpoolWriter &spool, const WriterIdentity &who, const TextPiece *pieces,
                            std::size_t count) noexcept;

    // Makes a record visible that claim() gave.
    void publish(Record *record, State state) noexcept { conclude(record, state); }
    // Changes the state of a published record.
    static void conclude(Record *record, State state) noexcept {
        const std::uint32_t salt = commit_salt(record->commit.load(std::memory_order_relaxed));
        record->commit.store(commit_word(salt, state), std::memory_order_release);
    }

    // In a ring: sees to it that `count` slots fit into the present chunk, and tells which one that is. What was said
    // in another chunk may be overwritten while this one is still read.
    std::uint64_t chunk_with_room(SpoolWriter &spool, const WriterIdentity &who, std::size_t count) noexcept {
        return has_room(count) || begin_chunk(spool, who, count) ? chunk_number() : 0;
    }
    bool has_room(std::size_t count) const noexcept {
        return next_ + count * kSlotBytes <= reinterpret_cast<std::uintptr_t>(end_);
    }
    std::uint64_t chunk_number() const noexcept { return std::uint64_t{stream_} << 32 | sequence_; }

    // In a ring: above 0 while this thread has a record that it will write into again. Then it keeps its chunk when it
    // begins another, so that nobody else gets it.
    std::uint32_t unfinished = 0;

    // After fork: the child must not write into its parent's chunk.
    void forget() noexcept { *this = StreamWriter{}; }

    // In a ring, by who is about to end: others may take its chunk though nobody waits for it. What it writes after all
    // goes into another one.
    void leave() noexcept {
        const SignalsBlocked no_signals;
        if (unfinished != 0) return;
        leave_chunks();
        first_ = end_ = nullptr;
        next_ = 0;
    }

  private:
    struct Chunk {
        Record *first, *end;
        std::uint32_t salt;

        bool holds(const Record *slot, std::size_t count) const noexcept {
            // Unsigned, so that what lies before the chunk is far behind its end. Without a chunk all is 0.
            const auto begin = reinterpret_cast<std::uintptr_t>(first);
            const auto bytes = reinterpret_cast<std::uintptr_t>(end) - begin;
            const auto at = reinterpret_cast<std::uintptr_t>(slot) - begin;
            return at < bytes && bytes - at >= count * kSlotBytes;
        }
    };

    // The present chunk as one value, although a signal handler may begin another between two loads.
    Chunk chunk() const noexcept {
        for (;;) {
            Chunk seen{first_, nullptr, 0};
            std::atomic_signal_fence(std::memory_order_seq_cst);
            seen.end = end_;
            seen.salt = salt_;
            std::atomic_signal_fence(std::memory_order_seq_cst);
            if (__builtin_expect(seen.first == first_, 1)) return seen;  // no two chunks begin at one address
        }
    }

    // The salt goes into the slot at once, under a state that no reader takes for a record: by the time the record is
    // published, a signal handler may have moved this stream to a chunk with another salt.
    static void mark(Record *slot, std::uint32_t salt) noexcept {
        slot->commit.store(commit_word(salt, State::empty), std::memory_order_relaxed);
    }

    // One instruction, so that a signal handler on this thread cannot be given the same slot; no bus lock, since no
    // other thread comes here.
    Record *advance(std::size_t count) noexcept {
        const std::size_t bytes = count * kSlotBytes;
#if defined(__x86_64__)
        std::size_t before = bytes;
        asm volatile("xaddq %0, %1" : "+r"(before), "+m"(next_) : : "cc");
        return reinterpret_cast<Record *>(before);
#else
        return reinterpret_cast<Record *>(__atomic_fetch_add(&next_, bytes, __ATOMIC_RELAXED));
#endif
    }
    bool begin_chunk(SpoolWriter &spool, const WriterIdentity &who, std::size_t count) noexcept;
    void leave_chunks() noexcept;

    static constexpr std::size_t kMostKept = 4;
    std::uintptr_t next_ = 0;
    Record *first_ = nullptr;
    Record *end_ = nullptr;
    std::uint32_t salt_ = 0;
    std::uint32_t stream_ = 0;
    std::uint32_t sequence_ = 0;
    std::size_t chunk_bytes_ = kFirstChunkBytes;
    Record *kept_[kMostKept] = {};  // first slots of chunks in which a record was unfinished when they were full
    std::size_t kept_count_ = 0;
};

__attribute__((noinline)) inline Record *StreamWriter::claim_elsewhere(Record *slot, SpoolWriter &spool,
                                                                       const WriterIdentity &who,
                                                                       std::size_t count) noexcept {
    for (int attempt = 0; attempt < 3; ++attempt) {
        const Chunk now = chunk();  // a signal handler may have begun it just before the slot was taken
        if (now.holds(slot, count)) {
            mark(slot, now.salt);
            return slot;
        }
        if (!begin_chunk(spool, who, count)) return nullptr;
        if (claim_here(slot, count)) return slot;
    }
    spool.count_drop(Drop::reentered);
    return nullptr;
}

inline Record *StreamWriter::claim_with_text(SpoolWriter &spool, const WriterIdentity &who, const TextPiece *pieces,
                                             std::size_t count) noexcept {
    std::size_t bytes = 0;
    for (std::size_t i = 0; i < count; ++i) bytes += pieces[i].bytes;
    const std::size_t slots = (bytes + kTextBytes - 1) / kTextBytes;
    Record *record = claim(spool, who, slots + 1);
    if (record == nullptr) return nullptr;
    const std::uint32_t salt = commit_salt(record->commit.load(std::memory_order_relaxed));
    std::size_t piece = 0;
    std::size_t at = 0;
    for (std::size_t index = 0; index < slots; ++index) {
        auto *slot = reinterpret_cast<TextSlot *>(record + 1 + index);
        slot->kind = RecordKind::text;
        slot->index_low = static_cast<std::uint8_t>(index);
        slot->index_high = static_cast<std::uint8_t>(index >> 8);
        std::size_t used = 0;
        while (used < kTextBytes && piece < count) {
            std::size_t part = pieces[piece].bytes - at;
            if (part > kTextBytes - used) part = kTextBytes - used;
            std::memcpy(slot->bytes + used, static_cast<const char *>(pieces[piece].data) + at, part);
            used += part;
            at += part;
            if (at == pieces[piece].bytes) {
                ++piece;
                at = 0;
            }
        }
        slot->used = static_cast<std::uint8_t>(used);
        slot->commit.store(commit_word(salt, State::complete), std::memory_order_release);
    }
    record->end = bytes;
    return record;
}

inline bool StreamWriter::begin_chunk(SpoolWriter &spool, const WriterIdentity &who, std::size_t count) noexcept {
    const std::size_t needed = (count + 1) * kSlotBytes;
    const bool ring = spool.is_ring();
    if (needed > (ring ? kRingChunkBytes : kLargestChunkBytes)) {
        spool.count_drop(Drop::too_long);
        return false;
    }
    if (!spool.worth_trying()) {
        spool.count_refusal();
        return false;
    }
    const SignalsBlocked no_signals;
    if (has_room(count)) return true;                           // a handler began one
    if (ring && unfinished != 0 && kept_count_ == kMostKept) {  // signal handlers within signal handlers
        spool.count_drop(Drop::reentered);
        return false;
    }
    std::size_t bytes = chunk_bytes_;
    while (bytes < needed) bytes *= 4;
    if (bytes > kLargestChunkBytes) bytes = kLargestChunkBytes;
    const std::size_t least_bytes = (needed + kPageBytes - 1) / kPageBytes * kPageBytes;
    std::uint64_t offset = 0;
    std::uint16_t claim = 0;
    char *memory = spool.claim_chunk(bytes, least_bytes, offset, claim);
    if (memory == nullptr) return false;
    if (ring) leave_chunks();
    if (claim < 2) spool.make_pages(memory, offset, bytes);  // a chunk of a ring that went round was just zeroed
    if (stream_ == 0) stream_ = spool.header().next_stream.fetch_add(1, std::memory_order_relaxed);
    auto *header = reinterpret_cast<ChunkHeader *>(memory);
    header->offset = offset;
    header->bytes = static_cast<std::uint32_t>(bytes);
    header->process = who.process;
    header->stream = stream_;
    header->sequence = sequence_++;
    std::atomic_ref<std::int32_t>(header->pid).store(who.pid, std::memory_order_relaxed);  // see take_in_ring
    std::atomic_ref<std::int32_t>(header->tid).store(who.tid, std::memory_order_relaxed);
    header->claimed = calibrate(spool.clock());
    chunk_start(*header).store(
        {kChunkMagic, static_cast<std::uint16_t>(kFormatVersion), chunk_clock_and_claim(spool.clock(), claim)},
        std::memory_order_release);

    first_ = reinterpret_cast<Record *>(memory) + 1;
    end_ = reinterpret_cast<Record *>(memory + bytes);
    next_ = reinterpret_cast<std::uintptr_t>(first_);
    salt_ = chunk_salt(offset, stream_, header->sequence);
    if (bytes == chunk_bytes_ && chunk_bytes_ < kLargestChunkBytes) chunk_bytes_ *= 4;
    return true;
}

// The chunk that was full, and those kept for a record that is finished by now, may be taken by others.
inline void StreamWriter::leave_chunks() noexcept {
    if (first_ == nullptr) return;
    if (unfinished != 0) {
        kept_[kept_count_++] = first_;
        return;
    }
    const auto leave = [](Record *first) {
        auto *header = reinterpret_cast<ChunkHeader *>(first - 1);
        std::atomic_ref<std::uint32_t>(header->magic).store(kLeftChunkMagic, std::memory_order_release);
    };
    leave(first_);
    while (kept_count_ > 0) leave(kept_[--kept_count_]);
}

}  // namespace planloop::wire

#endif
