// A closed spool, compressed: read in place of the spool that it was made from, at any offset, without unpacking it as
// a whole.
//
// Layout: frames of the Zstandard format (RFC 8878), so that `zstd -d` gives the spool back.
//
//     skippable frame   kPackedMark, bytes of the spool, bytes of a block
//     a frame a block   kBlockBytes of the spool each, with a checksum; the last one may be shorter
//     skippable frame   compressed bytes of each block, 32 bits; then kPackedEnd and how many they are
//
// Blocks stand for places of the file and not for chunks of it, so that nothing of the spool's own format is known
// here. Unpacked blocks are kept, the latest used, within kCacheBytes. A block that is damaged reads as zeros; where
// the index is lost, it is made anew from the frames' headers.
//
// Errors: one line. Threads: one user at a time. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_PACKED_SPOOL_H
#define PLANLOOP_LOCKCORE_PACKED_SPOOL_H

#include <cstddef>
#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lockcore/result.h"

namespace planloop {

inline constexpr std::string_view kPackedEnding = ".zst";

class PackedSpool {
  public:
    static constexpr std::size_t kBlockBytes = std::size_t{64} << 10;
    static constexpr std::size_t kCacheBytes = std::size_t{32} << 20;

    // nullptr: the file is not one of ours. `fd` is borrowed for the object's life.
    static std::unique_ptr<PackedSpool> open(int fd);
    ~PackedSpool();
    PackedSpool(const PackedSpool &) = delete;
    PackedSpool &operator=(const PackedSpool &) = delete;

    std::uint64_t size() const noexcept { return bytes_; }  // of the spool
    std::size_t read_at(std::uint64_t offset, void *to, std::size_t bytes);
    std::uint64_t damaged_blocks() const noexcept { return damaged_; }

  private:
    struct Block {
        std::uint64_t number;
        std::unique_ptr<char[]> bytes;
    };
    struct Context;
    PackedSpool(int fd, std::uint64_t bytes);
    bool read_index(std::uint64_t file_bytes);
    void rebuild_index(std::uint64_t file_bytes);
    const char *block(std::uint64_t number);
    bool unpack(std::uint64_t number, char *out);
    std::size_t bytes_of(std::uint64_t number) const;

    int fd_;
    std::uint64_t bytes_;
    std::vector<std::uint64_t> begins_;  // of each block's frame in the file, and of what follows the last one
    std::list<Block> cache_;             // latest used first
    std::unordered_map<std::uint64_t, std::list<Block>::iterator> cached_;
    std::unique_ptr<Context> context_;
    std::uint64_t damaged_ = 0;
};

struct PackedSizes {
    std::uint64_t before = 0, after = 0;
};

// Writes the first `bytes` of `from` to the new file `to` (with its owner's rights and its time), which appears under
// its name only when it is whole and on disk.
Result<PackedSizes> pack_spool(const std::string &from, std::uint64_t bytes, const std::string &to);

}  // namespace planloop

#endif
