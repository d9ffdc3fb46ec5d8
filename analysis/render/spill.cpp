#include "analysis/render/spill.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

namespace planloop::analysis {
namespace {

// O_TMPFILE is not known to every file system; a name that is removed at once serves the others.
int open_nameless() {
    std::error_code failed;
    std::string folder = std::filesystem::temp_directory_path(failed);
    if (failed) folder = "/tmp";
    const int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    std::string name = folder + "/planloop-XXXXXX";
    const int named = ::mkostemp(name.data(), O_CLOEXEC);
    if (named >= 0) ::unlink(name.c_str());
    return named;
}

}  // namespace

TimelineSpill::TimelineSpill(std::size_t memory_bytes) : memory_bytes_(memory_bytes) {}

TimelineSpill::~TimelineSpill() {
    if (fd_ >= 0) ::close(fd_);
}

void TimelineSpill::append(std::string_view bytes) {
    if (error_ != 0) return;
    buffer_.append(bytes);
    if (buffer_.size() >= memory_bytes_) flush();
}

void TimelineSpill::flush() {
    if (fd_ < 0) fd_ = open_nameless();
    std::string_view rest = buffer_;
    while (fd_ >= 0 && !rest.empty()) {
        const ssize_t wrote = ::write(fd_, rest.data(), rest.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) break;
        rest.remove_prefix(static_cast<std::size_t>(wrote));
    }
    if (!rest.empty()) error_ = errno;
    buffer_.clear();
}

Result<void> TimelineSpill::copy_to(const std::function<bool(std::string_view)> &write) {
    const auto failure = [](int error) {
        return Error{std::string("cannot keep the timeline in a temporary file: ") + std::strerror(error)};
    };
    if (error_ != 0) return failure(error_);
    if (fd_ < 0) {
        if (!buffer_.empty()) write(buffer_);
        return {};
    }
    flush();
    if (error_ != 0) return failure(error_);
    std::string piece(std::size_t{256} << 10, '\0');
    for (off_t at = 0;;) {
        const ssize_t got = ::pread(fd_, piece.data(), piece.size(), at);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return failure(errno);
        if (got == 0 || !write({piece.data(), static_cast<std::size_t>(got)})) return {};
        at += got;
    }
}

}  // namespace planloop::analysis
