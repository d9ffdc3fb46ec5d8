#include "lockcore/packed_spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "lockcore/session.h"

namespace planloop {
namespace {

constexpr std::uint32_t kSkippable = ZSTD_MAGIC_SKIPPABLE_START;
constexpr char kPackedMark[8] = {'P', 'L', 'P', 'A', 'C', 'K', '1', '\n'};
constexpr char kPackedEnd[8] = {'P', 'L', 'I', 'N', 'D', 'E', 'X', '\n'};
constexpr int kLevel = 3;

struct Head {
    std::uint32_t frame, frame_bytes;
    char mark[8];
    std::uint64_t spool_bytes, block_bytes;
};
static_assert(sizeof(Head) == 32);

struct Tail {
    std::uint64_t blocks;
    char mark[8];
};

bool read_all(int fd, std::uint64_t offset, void *to, std::size_t bytes) {
    auto *out = static_cast<char *>(to);
    while (bytes > 0) {
        const ssize_t got = pread(fd, out, bytes, static_cast<off_t>(offset));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return false;
        out += got;
        offset += static_cast<std::uint64_t>(got);
        bytes -= static_cast<std::size_t>(got);
    }
    return true;
}

bool write_all(int fd, const void *from, std::size_t bytes) {
    const auto *in = static_cast<const char *>(from);
    while (bytes > 0) {
        const ssize_t wrote = write(fd, in, bytes);
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote <= 0) return false;
        in += wrote;
        bytes -= static_cast<std::size_t>(wrote);
    }
    return true;
}

class File {
  public:
    explicit File(int fd) : fd_(fd) {}
    ~File() {
        if (fd_ >= 0) ::close(fd_);
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    int get() const { return fd_; }

  private:
    int fd_;
};

struct FreeContext {
    void operator()(ZSTD_CCtx *context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx *context) const { ZSTD_freeDCtx(context); }
};

Error failure(std::string_view what, const std::string &path) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(errno))};  // NOLINT(concurrency-mt-unsafe)
}

}  // namespace

struct PackedSpool::Context {
    std::unique_ptr<ZSTD_DCtx, FreeContext> unpack{ZSTD_createDCtx()};
    std::vector<char> frame;
};

PackedSpool::PackedSpool(int fd, std::uint64_t bytes) : fd_(fd), bytes_(bytes), context_(std::make_unique<Context>()) {}
PackedSpool::~PackedSpool() = default;

std::unique_ptr<PackedSpool> PackedSpool::open(int fd) {
    Head head{};
    struct stat status {};
    if (fstat(fd, &status) != 0 || !read_all(fd, 0, &head, sizeof(head))) return nullptr;
    if (head.frame != kSkippable || head.frame_bytes != sizeof(head) - 8 ||
        std::memcmp(head.mark, kPackedMark, sizeof(kPackedMark)) != 0 || head.block_bytes != kBlockBytes) {
        return nullptr;
    }
    std::unique_ptr<PackedSpool> spool(new PackedSpool(fd, head.spool_bytes));
    const auto file_bytes = static_cast<std::uint64_t>(status.st_size);
    if (!spool->read_index(file_bytes)) spool->rebuild_index(file_bytes);
    return spool;
}

// False: the index is lost, or does not fit the file. What it says is not believed further than the file goes.
bool PackedSpool::read_index(std::uint64_t file_bytes) {
    Tail tail{};
    if (file_bytes < sizeof(Head) + sizeof(tail) + 8 || !read_all(fd_, file_bytes - sizeof(tail), &tail, sizeof(tail)))
        return false;
    const std::uint64_t blocks = (bytes_ + kBlockBytes - 1) / kBlockBytes;
    if (std::memcmp(tail.mark, kPackedEnd, sizeof(kPackedEnd)) != 0 || tail.blocks != blocks ||
        blocks > file_bytes / sizeof(std::uint32_t)) {
        return false;
    }
    std::vector<std::uint32_t> sizes(blocks);
    const std::uint64_t list_bytes = blocks * sizeof(std::uint32_t);
    if (list_bytes + sizeof(tail) + 8 + sizeof(Head) > file_bytes ||
        !read_all(fd_, file_bytes - sizeof(tail) - list_bytes, sizes.data(), list_bytes)) {
        return false;
    }
    begins_.assign(1, sizeof(Head));
    for (const std::uint32_t size : sizes) begins_.push_back(begins_.back() + size);
    return begins_.back() + 8 + list_bytes + sizeof(tail) == file_bytes;
}

void PackedSpool::rebuild_index(std::uint64_t file_bytes) {
    begins_.assign(1, sizeof(Head));
    std::vector<char> &frame = context_->frame;
    frame.resize(ZSTD_compressBound(kBlockBytes));
    while (begins_.back() < file_bytes) {
        const auto bytes = std::min<std::uint64_t>(frame.size(), file_bytes - begins_.back());
        if (!read_all(fd_, begins_.back(), frame.data(), bytes)) break;
        const std::size_t size = ZSTD_findFrameCompressedSize(frame.data(), bytes);
        if (ZSTD_isError(size) != 0) break;
        std::uint32_t magic = 0;
        std::memcpy(&magic, frame.data(), sizeof(magic));
        if (magic != ZSTD_MAGICNUMBER) break;  // the index, or another skippable frame
        begins_.push_back(begins_.back() + size);
    }
}

std::size_t PackedSpool::bytes_of(std::uint64_t number) const {
    return static_cast<std::size_t>(std::min<std::uint64_t>(kBlockBytes, bytes_ - number * kBlockBytes));
}

bool PackedSpool::unpack(std::uint64_t number, char *out) {
    if (number + 1 >= begins_.size()) return false;
    const std::uint64_t frame_bytes = begins_[number + 1] - begins_[number];
    if (frame_bytes > ZSTD_compressBound(kBlockBytes)) return false;
    context_->frame.resize(frame_bytes);
    if (!read_all(fd_, begins_[number], context_->frame.data(), frame_bytes)) return false;
    const std::size_t got =
        ZSTD_decompressDCtx(context_->unpack.get(), out, kBlockBytes, context_->frame.data(), frame_bytes);
    return got == bytes_of(number);
}

const char *PackedSpool::block(std::uint64_t number) {
    if (const auto known = cached_.find(number); known != cached_.end()) {
        cache_.splice(cache_.begin(), cache_, known->second);
        return known->second->bytes.get();
    }
    if (cache_.size() >= kCacheBytes / kBlockBytes) {
        cached_.erase(cache_.back().number);
        cache_.splice(cache_.begin(), cache_, std::prev(cache_.end()));
    } else {
        cache_.push_front({0, std::make_unique_for_overwrite<char[]>(kBlockBytes)});
    }
    Block &fresh = cache_.front();
    fresh.number = number;
    if (!unpack(number, fresh.bytes.get())) {
        ++damaged_;
        std::memset(fresh.bytes.get(), 0, kBlockBytes);
    }
    cached_[number] = cache_.begin();
    return fresh.bytes.get();
}

std::size_t PackedSpool::read_at(std::uint64_t offset, void *to, std::size_t bytes) {
    std::size_t done = 0;
    while (done < bytes && offset + done < bytes_) {
        const std::uint64_t number = (offset + done) / kBlockBytes;
        const auto at = static_cast<std::size_t>((offset + done) % kBlockBytes);
        const std::size_t part = std::min(bytes - done, bytes_of(number) - at);
        std::memcpy(static_cast<char *>(to) + done, block(number) + at, part);
        done += part;
    }
    return done;
}

namespace {

// Everything but the file's name and durability.
Result<std::uint64_t> pack_into(int in, int out, std::uint64_t bytes, const std::string &from, const std::string &to) {
    const std::unique_ptr<ZSTD_CCtx, FreeContext> context(ZSTD_createCCtx());
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_compressionLevel, kLevel);
    ZSTD_CCtx_setParameter(context.get(), ZSTD_c_checksumFlag, 1);
    Head head{kSkippable, sizeof(Head) - 8, {}, bytes, PackedSpool::kBlockBytes};
    std::memcpy(head.mark, kPackedMark, sizeof(kPackedMark));
    if (!write_all(out, &head, sizeof(head))) return failure("write", to);
    std::uint64_t written = sizeof(head);
    std::vector<char> plain(PackedSpool::kBlockBytes);
    std::vector<char> packed(ZSTD_compressBound(plain.size()));
    std::vector<std::uint32_t> sizes;
    for (std::uint64_t at = 0; at < bytes; at += plain.size()) {
        const auto part = static_cast<std::size_t>(std::min<std::uint64_t>(plain.size(), bytes - at));
        errno = ENODATA;  // where the file is shorter than it says
        if (!read_all(in, at, plain.data(), part)) return failure("read", from);
        const std::size_t size = ZSTD_compress2(context.get(), packed.data(), packed.size(), plain.data(), part);
        if (ZSTD_isError(size) != 0) return Error{fmt::format("cannot compress {}", printable(from))};
        if (!write_all(out, packed.data(), size)) return failure("write", to);
        sizes.push_back(static_cast<std::uint32_t>(size));
        written += size;
    }
    Tail tail{sizes.size(), {}};
    std::memcpy(tail.mark, kPackedEnd, sizeof(kPackedEnd));
    const std::size_t list_bytes = sizes.size() * sizeof(std::uint32_t);
    const std::uint32_t frame[] = {kSkippable + 1, static_cast<std::uint32_t>(list_bytes + sizeof(tail))};
    if (!write_all(out, frame, sizeof(frame)) || !write_all(out, sizes.data(), list_bytes) ||
        !write_all(out, &tail, sizeof(tail))) {
        return failure("write", to);
    }
    return written + sizeof(frame) + list_bytes + sizeof(tail);
}

}  // namespace

Result<PackedSizes> pack_spool(const std::string &from, std::uint64_t bytes, const std::string &to) {
    const File in(::open(from.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW));
    struct stat status {};
    if (in.get() < 0 || fstat(in.get(), &status) != 0) return failure("read", from);
    const std::string aside = to + ".part";
    const File out(::open(aside.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (out.get() < 0) return failure("write", aside);
    Result<std::uint64_t> written = pack_into(in.get(), out.get(), bytes, from, aside);
    if (written) {
        const timespec times[] = {status.st_atim, status.st_mtim};
        static_cast<void>(fchown(out.get(), status.st_uid, status.st_gid));  // root packs for others
        futimens(out.get(), times);
        if (fsync(out.get()) != 0 || std::rename(aside.c_str(), to.c_str()) != 0) written = failure("write", to);
    }
    if (!written) {
        unlink(aside.c_str());
        return written.error();
    }
    return PackedSizes{bytes, *written};
}

}  // namespace planloop
