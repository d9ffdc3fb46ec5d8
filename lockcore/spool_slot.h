// A slot of a spool as plain bytes, for readers: what wire::Record is, without its atomic.
// Internal to the reader. Threads and signals: plain data.
#ifndef PLANLOOP_LOCKCORE_SPOOL_SLOT_H
#define PLANLOOP_LOCKCORE_SPOOL_SLOT_H

#include <cstddef>
#include <cstdint>

#include "lockcore/wire/spool_format.h"

namespace planloop {

struct RawSlot {
    std::uint32_t commit;
    std::uint8_t kind, family, mode, flags;
    std::uint64_t begin, end;
    std::int32_t error, fd;
    std::uint32_t file, description;
    std::uint64_t a, b, caller;
};
static_assert(sizeof(RawSlot) == sizeof(wire::Record) && offsetof(RawSlot, begin) == offsetof(wire::Record, begin) &&
              offsetof(RawSlot, file) == offsetof(wire::Record, file) &&
              offsetof(RawSlot, a) == offsetof(wire::Record, a));

// State of a slot in a chunk with that salt; empty also for what carries another one or no known state.
constexpr wire::State commit_of(const RawSlot &slot, std::uint32_t salt) noexcept {
    const wire::State state = wire::commit_state(slot.commit);
    if (wire::commit_salt(slot.commit) != salt || state > wire::State::abandoned) {
        return wire::State::empty;
    }
    return state;
}

}  // namespace planloop

#endif
