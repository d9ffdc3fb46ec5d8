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
    FlatMap() = default;
    FlatMap(const FlatMap &) = default;  // and no move: what was moved from would not be empty
    FlatMap &operator=(const FlatMap &) = default;
    ~FlatMap() = default;

    // kNone when absent. Keys may be anything but ~0.
    Index find(std::uint64_t key) const noexcept {
        if (used_ == 0) return kNone;
        const Slot *const slots = slots_.data();
        for (std::size_t at = home(key);; at = (at + 1) & mask_) {
            if (slots[at].key == key) return slots[at].value;
            if (slots[at].key == kFree) return kNone;
        }
    }

    // The value of the key, to be changed before anything else is; `fresh` where there was none.
    Index &at(std::uint64_t key, Index fresh) {
        if (used_ * 2 >= mask_) grow();
        Slot *const slots = slots_.data();
        std::size_t at = home(key);
        while (slots[at].key != key) {
            if (slots[at].key == kFree) {
                ++used_;
                slots[at] = {key, fresh};
                break;
            }
            at = (at + 1) & mask_;
        }
        return slots[at].value;
    }

    void put(std::uint64_t key, Index value) { at(key, value) = value; }

    void erase(std::uint64_t key) noexcept {
        if (used_ == 0) return;
        Slot *const slots = slots_.data();
        std::size_t at = home(key);
        while (slots[at].key != key) {
            if (slots[at].key == kFree) return;
            at = (at + 1) & mask_;
        }
        --used_;
        for (std::size_t next = (at + 1) & mask_; slots[next].key != kFree; next = (next + 1) & mask_) {
            // An entry may fill the hole unless its home lies between the hole and itself.
            if (((next - home(slots[next].key)) & mask_) < ((next - at) & mask_)) continue;
            slots[at] = slots[next];
            at = next;
        }
        slots[at].key = kFree;
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

    std::size_t home(std::uint64_t key) const noexcept {
        key = (key ^ key >> 32) * 0x9e3779b97f4a7c15u;
        return static_cast<std::size_t>(key >> 20) & mask_;
    }
    [[gnu::noinline]] void grow() {  // seldom: in line it would make all of at() slower
        std::vector<Slot> old(slots_.empty() ? 64 : slots_.size() * 2, Slot{kFree, kNone});
        old.swap(slots_);
        mask_ = slots_.size() - 1;
        used_ = 0;
        for (const Slot &slot : old)
            if (slot.key != kFree) put(slot.key, slot.value);
    }

    std::vector<Slot> slots_;
    std::size_t mask_ = 0;  // their number, a power of two, less one
    std::size_t used_ = 0;  // at most half of them
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
        return make_another();
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
    [[gnu::noinline]] Index make_another() {  // as FlatMap::grow()
        if (next_ == chunks_.size() * kChunk) chunks_.push_back(std::make_unique<T[]>(kChunk));
        return next_++;
    }
    std::vector<std::unique_ptr<T[]>> chunks_;
    std::vector<Index> free_;
    Index next_ = 0;
    std::size_t live_ = 0;
};

}  // namespace planloop::analysis

#endif
