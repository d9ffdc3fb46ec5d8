// What a flight recorder asks of a writer: each chunk of a ring must be readable when all others have been overwritten.
// So a chunk with a lock call in it also says which process writes it and what file the call is about, again if need
// be. A handful of slots in 255; nothing of it is done where the spool only grows.
//
// Signals and threads: as stream_writer.h, each function is about the calling thread.
#ifndef PLANLOOP_INTERPOSE_RING_H
#define PLANLOOP_INTERPOSE_RING_H

#include "interpose/attach.h"

namespace planloop::shim {

// Introduces the process in the thread's present chunk, or in a new one if that is full.
void introduce_in_chunk(Thread &me) noexcept;

// A slot for a lock call on `fd`, whose file is `file`, in a chunk in which both are introduced; nullptr: dropped.
wire::Record *claim_in_ring_slowly(Thread &me, int fd, std::uint32_t file) noexcept;
// In a new chunk: see StreamWriter::claim_elsewhere().
wire::Record *claim_elsewhere(Thread &me, wire::Record *slot) noexcept;

// The same, in whatever spool.
__attribute__((always_inline)) inline wire::Record *claim_for_call(Thread &me, int fd, std::uint32_t file) noexcept {
    if (__builtin_expect(process.spool.is_ring(), 0)) {
        const bool introduced = me.ring_files[file % kRingFiles] == file && me.stream.chunk_number() == me.ring_chunk;
        if (__builtin_expect(!introduced || !me.stream.has_room(1), 0)) return claim_in_ring_slowly(me, fd, file);
    }
    wire::Record *slot = nullptr;
    return me.stream.claim_here(slot) ? slot : claim_elsewhere(me, slot);
}

}  // namespace planloop::shim

#endif
