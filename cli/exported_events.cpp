#include "cli/exported_events.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace planloop::cli {
namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::uint64_t kMostSlots = std::uint64_t{1} << 28;  // 16 GiB of spool; keeps damage from taking memory

unsigned bit_of(analysis::EventKind kind) {
    switch (kind) {
        case analysis::EventKind::lock_requested:
            return 1;
        case analysis::EventKind::lock_acquired:
            return 2;
        case analysis::EventKind::lock_failed:
            return 4;
        default:
            return 8;
    }
}

}  // namespace

Result<ExportedEvents> ExportedEvents::load(const std::string &path) {
    ExportedEvents events(path);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return events;
    ssize_t got = -1;
    if (fd >= 0) {
        char piece[std::size_t{64} << 10];
        while ((got = ::read(fd, piece, sizeof(piece))) > 0) {
            events.bits_.insert(events.bits_.end(), piece, piece + got);
        }
    }
    const int error = errno;
    if (fd >= 0) ::close(fd);
    if (got < 0) return Error{fmt::format("cannot read {}: {}", path, std::strerror(error))};
    return events;
}

bool ExportedEvents::take(std::uint64_t slot, analysis::EventKind kind) {
    if (slot >= kMostSlots) return true;
    const auto at = static_cast<std::size_t>(slot / 2);
    const auto bit = static_cast<std::uint8_t>(bit_of(kind) << (slot % 2 * 4));
    if (at >= bits_.size()) bits_.resize((at / kPageBytes + 1) * kPageBytes);
    if ((bits_[at] & bit) != 0) return false;
    bits_[at] = static_cast<std::uint8_t>(bits_[at] | bit);
    changed_.insert(at / kPageBytes);
    return true;
}

Result<void> ExportedEvents::store() {
    if (changed_.empty()) return {};
    const int fd = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    bool whole = fd >= 0;
    for (const std::size_t page : changed_) {
        if (!whole) break;
        const std::size_t bytes = std::min(kPageBytes, bits_.size() - page * kPageBytes);
        whole = ::pwrite(fd, bits_.data() + page * kPageBytes, bytes, static_cast<off_t>(page * kPageBytes)) ==
                static_cast<ssize_t>(bytes);
    }
    const int error = errno;
    if (fd >= 0) ::close(fd);
    if (!whole) return Error{fmt::format("cannot write {}: {}", path_, std::strerror(error))};
    changed_.clear();
    return {};
}

}  // namespace planloop::cli
