// What happens to a descriptor that matters to locks, whatever call it came through.
#ifndef PLANLOOP_INTERPOSE_DESCRIPTOR_CALLS_H
#define PLANLOOP_INTERPOSE_DESCRIPTOR_CALLS_H

#include "interpose/descriptors.h"
#include "interpose/recording.h"

namespace planloop::shim {

// To be called before `fd` is really closed: if a lock may hang on it, records that this process lets go of it.
// nullptr: nothing was recorded.
wire::Record *let_go(int fd, wire::CloseCause cause) noexcept;

// let_go() for all that is open from `first` to `last`.
void let_go_range(unsigned first, unsigned last, wire::CloseCause cause) noexcept;

// To be called after `copy` was made from `original`.
void note_duplicate(int original, int copy) noexcept;

// dup2 and dup3: `copy` is closed first if it is open, which is taken back when the real call fails.
template <class Real>
long record_replace(int original, int copy, Real real_call) {
    if (original == copy || (!may_concern_locks(original) && !may_concern_locks(copy))) {
        const long untracked = real_call();
        if (untracked >= 0) note_duplicate(original, copy);
        return untracked;
    }
    const Descriptor *old = find_descriptor(copy);
    const std::uint64_t ids = old != nullptr ? old->ids.load(std::memory_order_relaxed) : 0;
    const Descriptor before{ids, old != nullptr ? old->device : 0, old != nullptr ? old->inode : 0,
                            old != nullptr ? old->provenance.load(std::memory_order_relaxed) : 0u, 0u};
    wire::StreamWriter &stream = thread.stream;
    ++stream.unfinished;
    wire::Record *closed = let_go(copy, wire::CloseCause::replaced);
    const long result = real_call();
    if (result >= 0) {
        note_duplicate(original, copy);
    } else if (closed != nullptr) {
        wire::StreamWriter::conclude(closed, wire::State::annulled);
        if (ids != 0) {
            track(copy, Identity::unpack(ids), before.device, before.inode,
                  static_cast<Descriptor::Provenance>(before.provenance.load(std::memory_order_relaxed)));
        }
    }
    --stream.unfinished;
    return result;
}

}  // namespace planloop::shim

#endif
