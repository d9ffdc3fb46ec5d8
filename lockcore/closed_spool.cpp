#include "lockcore/closed_spool.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

#include "lockcore/numbered_entries.h"
#include "lockcore/packed_spool.h"
#include "lockcore/session.h"
#include "lockcore/wire/spool_format.h"

namespace planloop {
namespace {

constexpr std::string_view kSpoolEnding = ".spool";

std::string_view base_of(std::string_view path) {
    return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

Error failure(std::string_view what, const std::string &path) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(errno))};  // NOLINT(concurrency-mt-unsafe)
}

// The header of a spool, mapped for a scope.
class HeaderMap {
  public:
    explicit HeaderMap(const std::string &path) {
        const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0) return;
        struct stat status {};
        if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && status.st_size >= long{wire::kPageBytes}) {
            void *mapped = mmap(nullptr, wire::kPageBytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
            if (mapped != MAP_FAILED) header_ = static_cast<wire::SpoolHeader *>(mapped);
        }
        ::close(fd);
        if (header_ != nullptr && std::memcmp(header_->magic, wire::kSpoolMagic, sizeof(wire::kSpoolMagic)) != 0) {
            munmap(header_, wire::kPageBytes);
            header_ = nullptr;
        }
    }
    ~HeaderMap() {
        if (header_ != nullptr) munmap(header_, wire::kPageBytes);
    }
    HeaderMap(const HeaderMap &) = delete;
    HeaderMap &operator=(const HeaderMap &) = delete;
    wire::SpoolHeader *operator->() const { return header_; }
    explicit operator bool() const { return header_ != nullptr; }

  private:
    wire::SpoolHeader *header_ = nullptr;
};

// A line of /proc/PID/maps: range, rights, offset, device, inode, path (proc(5)).
void read_maps(const std::string &path, MappedFiles &out) {
    std::ifstream maps(path);
    for (std::string line; std::getline(maps, line);) {
        if (line.find("/locks-v") == std::string::npos) continue;
        unsigned major = 0, minor = 0;
        unsigned long inode = 0;
        if (std::sscanf(line.c_str(), "%*s %*s %*s %x:%x %lu", &major, &minor, &inode) == 3) {  // NOLINT(cert-err34-c)
            out.emplace(makedev(major, minor), inode);
        }
    }
}

// Beside planloop.jsonl: which events of the spool stand there already.
std::string exported_list(const std::string &spool) {
    const std::string_view base = base_of(spool);
    return fmt::format("{}../.{}.exported", spool.substr(0, spool.size() - base.size()), base);
}

void rename_exported_list(const std::string &from, const std::string &to) {
    // There is none where nothing was exported.
    static_cast<void>(std::rename(exported_list(from).c_str(), exported_list(to).c_str()));
}

bool is_closed_name(std::string_view name) {
    return name != name_while_written(name);
}

}  // namespace

MappedFiles mapped_spools() {
    MappedFiles found;
    for_each_number("/proc", [&](pid_t pid) {
        if (pid != getpid()) read_maps(fmt::format("/proc/{}/maps", pid), found);
    });
    return found;
}

bool spool_in_use(const std::string &path, const MappedFiles &mapped) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0) return false;
    if (mapped.count({status.st_dev, status.st_ino}) != 0) return true;
    const HeaderMap header(path);
    if (!header || is_closed_name(base_of(path))) return false;
    const std::uint32_t supervisor = header->supervisor.load(std::memory_order_relaxed);
    const bool alive = supervisor != 0 && (kill(static_cast<pid_t>(supervisor), 0) == 0 || errno == EPERM);
    return alive && supervisor != static_cast<std::uint32_t>(getpid());
}

Result<std::string> close_spool(const std::string &path) {
    if (is_closed_name(base_of(path))) return path;
    const HeaderMap header(path);
    if (!header) return Error{fmt::format("{}: is no spool that can be closed", printable(path))};
    std::atomic<wire::Closing> &closing = header->closing;
    wire::Closing seen = wire::Closing::open;
    closing.compare_exchange_strong(seen, wire::Closing::wanted);
    seen = wire::Closing::wanted;
    if (spool_in_use(path, mapped_spools())) {
        closing.compare_exchange_strong(seen, wire::Closing::open);
        return std::string();
    }
    // Who died here before gave it no other name.
    if (!closing.compare_exchange_strong(seen, wire::Closing::closed) && seen != wire::Closing::closed) {
        return std::string();
    }
    // Its numbers are those of this spool (wire/share_table.h).
    unlink((path + ".shares").c_str());
    const std::string stem = path.substr(0, path.size() - kSpoolEnding.size());
    std::string closed = fmt::format("{}-{:x}{}", stem, header->created.utc_ns, kSpoolEnding);
    rename_exported_list(path, closed);
    if (std::rename(path.c_str(), closed.c_str()) != 0) {
        rename_exported_list(closed, path);
        const Error error = failure("rename", path);
        closing.store(wire::Closing::open);
        return error;
    }
    return closed;
}

Result<Compressed> compress_closed_spool(const std::string &path) {
    std::uint64_t bytes = 0;
    struct stat before {};
    {
        const HeaderMap header(path);
        if (!header || stat(path.c_str(), &before) != 0) return failure("read", path);
        // What is reserved behind the last chunk was never written.
        bytes = std::min<std::uint64_t>(header->next_offset.load(), static_cast<std::uint64_t>(before.st_size));
    }
    const std::string packed = path + std::string(kPackedEnding);
    const Result<PackedSizes> sizes = pack_spool(path, bytes, packed);
    if (!sizes) return sizes.error();
    // A reader that finds both takes the first.
    rename_exported_list(path, packed);
    if (unlink(path.c_str()) != 0) return failure("remove", path);
    return Compressed{static_cast<std::uint64_t>(before.st_blocks) * 512, sizes->after};
}

std::string name_while_written(std::string_view name) {
    if (name.size() > kPackedEnding.size() && name.substr(name.size() - kPackedEnding.size()) == kPackedEnding) {
        name.remove_suffix(kPackedEnding.size());
    }
    if (name.size() < kSpoolEnding.size() || name.substr(name.size() - kSpoolEnding.size()) != kSpoolEnding) {
        return std::string(name);
    }
    // locks-v<digit>-<boot>[-<when>].spool
    constexpr std::size_t kDashes = 2;
    std::size_t dash = 0;
    for (std::size_t i = 0; i < kDashes && dash != std::string_view::npos; ++i) dash = name.find('-', dash + 1);
    const std::size_t when = dash == std::string_view::npos ? dash : name.find('-', dash + 1);
    if (when == std::string_view::npos) return std::string(name);
    return std::string(name.substr(0, when)) + std::string(kSpoolEnding);
}

}  // namespace planloop
