#include "interpose/ring.h"

#include <sys/stat.h>

#include <cstring>

#include "interpose/descriptors.h"
#include "interpose/introduction.h"

namespace planloop::shim {

void introduce_in_chunk(Thread &me) noexcept {
    const std::uint64_t chunk = me.stream.chunk_with_room(process.spool, me.who(process), 1);
    if (chunk == 0 || chunk == me.ring_chunk) return;
    me.ring_chunk = chunk;
    std::memset(me.ring_files, 0, sizeof(me.ring_files));
    process.page.load(std::memory_order_relaxed)->modules.clear();  // told anew by the next calls
    repeat_introduction(me);
    // It may have needed a chunk of its own.
    me.ring_chunk = me.stream.chunk_number();
}

wire::Record *claim_in_ring_slowly(Thread &me, int fd, std::uint32_t file) noexcept {
    constexpr int kAttempts = 4;  // a signal handler may begin another chunk at any moment
    for (int attempt = 0; attempt < kAttempts; ++attempt) {
        introduce_in_chunk(me);
        if (file != 0 && me.ring_files[file % kRingFiles] != file) {
            repeat_file(me, fd, file);
            continue;
        }
        wire::Record *record = me.stream.claim(process.spool, me.who(process));
        if (record == nullptr || me.stream.chunk_number() == me.ring_chunk) return record;
        me.stream.publish(record, wire::State::annulled);
    }
    process.spool.count_drop(wire::Drop::reentered);
    return nullptr;
}

wire::Record *claim_elsewhere(Thread &me, wire::Record *slot) noexcept {
    return me.stream.claim_elsewhere(slot, process.spool, me.who(process));
}

}  // namespace planloop::shim
