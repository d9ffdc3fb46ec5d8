// Two containers of the analysis' hot path. Neither allocates in the steady state: what was freed is used again.
//
// FlatMap: open addressing from a 64-bit key to an Index; erasing moves later entries back, so there are no graves.
// Pool: objects named by a small number, at addresses that never move. T needs clear(), which makes it fit for
// its next user and keeps the memory its members own.
//
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_FLAT_MAP_H
#define PLANLOOP_ANALYSIS_FLAT_MAP_H

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace planloop::analysis {

using Index = std::uint32_t;
inline constexpr Index kNone = 0xffffffff;

class FlatMap {
  public:
    // kNone when absent. Keys may be anything but ~0.
    Index find(std::uint64_t key) const noexcept {
        if (slots_.empty()) return kNone;
        for (std::size_t at = home(key);; at = (at + 1) & mask()) {
            if (slots_[at].key == key) return slots_[at].value;
            if (slots_[at].key == kFree) return kNone;
        }
    }

    void put(std::uint64_t key, Index value) {
        if ((used_ + 1) * 2 > slots_.size()) grow();
        std::size_t at = home(key);
        while (slots_[at].key != kFree && slots_[at].key != key) at = (at + 1) & mask();
        if (slots_[at].key == kFree) ++used_;
        slots_[at] = {key, value};
    }

    void erase(std::uint64_t key) noexcept {
        if (slots_.empty()) return;
        std::size_t at = home(key);
        while (slots_[at].key != key) {
            if (slots_[at].key == kFree) return;
            at = (at + 1) & mask();
        }
        --used_;
        for (std::size_t next = (at + 1) & mask(); slots_[next].key != kFree; next = (next + 1) & mask()) {
            // An entry may fill the hole unless its home lies between the hole and itself.
            if (((next - home(slots_[next].key)) & mask()) < ((next - at) & mask())) continue;
            slots_[at] = slots_[next];
            at = next;
        }
        slots_[at].key = kFree;
    }

    void clear() noexcept {
        for (Slot &slot : slots_) slot.key = kFree;
        used_ = 0;
    }

    std::size_t size() const noexcept { return used_; }

  private:
    static constexpr std::uint64_t kFree = ~std::uint64_t{0};
    struct Slot {
        std::uint64_t key;
        Index value;
    };

    std::size_t mask() const noexcept { return slots_.size() - 1; }
    std::size_t home(std::uint64_t key) const noexcept {
        key = (key ^ key >> 32) * 0x9e3779b97f4a7c15u;
        return static_cast<std::size_t>(key >> 20) & mask();
    }
    void grow() {
        std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2, Slot{kFree, kNone});
        old.swap(slots_);
        used_ = 0;
        for (const Slot &slot : old)
            if (slot.key != kFree) put(slot.key, slot.value);
    }

    std::vector<Slot> slots_;
    std::size_t used_ = 0;
};

template <class T>
class Pool {
  public:
    Index make() {
        ++live_;
        if (!free_.empty()) {
            const Index index = free_.back();
            free_.pop_back();
            return index;
        }
        if (next_ == chunks_.size() * kChunk) chunks_.push_back(std::make_unique<T[]>(kChunk));
        return next_++;
    }
    void release(Index index) {
        (*this)[index].clear();
        free_.push_back(index);
        --live_;
    }
    T &operator[](Index index) noexcept { return chunks_[index / kChunk][index % kChunk]; }
    const T &operator[](Index index) const noexcept { return chunks_[index / kChunk][index % kChunk]; }
    std::size_t live() const noexcept { return live_; }
    Index end() const noexcept { return next_; }  // every index made so far is below

  private:
    static constexpr Index kChunk = 64;
    std::vector<std::unique_ptr<T[]>> chunks_;
    std::vector<Index> free_;
    Index next_ = 0;
    std::size_t live_ = 0;
};

}  // namespace planloop::analysis

#endif
