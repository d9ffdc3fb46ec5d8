#include "lockcore/state_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

namespace planloop {
namespace {

Error file_error(std::string_view what, const std::string &path, int error) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(error))};  // NOLINT(concurrency-mt-unsafe)
}

Result<std::string> read_whole(const std::string &path, std::size_t most) {
    // O_NONBLOCK: a FIFO under this name must not stop us.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return file_error("read", path, errno);
    std::string content;
    struct stat status {};
    Result<std::string> result = content;
    if (::fstat(fd, &status) != 0) {
        result = file_error("read", path, errno);
    } else if (!S_ISREG(status.st_mode)) {
        result = Error{fmt::format("cannot read {}: it is not a file", printable(path))};
    } else if (static_cast<std::uint64_t>(status.st_size) > most) {
        result = Error{fmt::format("cannot read {}: it has {} MiB, more than {}", printable(path), status.st_size >> 20,
                                   most >> 20)};
    } else {
        content.resize(static_cast<std::size_t>(status.st_size));
        std::size_t length = 0;
        ssize_t got = 1;
        while (length < content.size() && got > 0) {
            got = ::read(fd, content.data() + length, content.size() - length);
            if (got > 0) length += static_cast<std::size_t>(got);
            if (got < 0 && errno == EINTR) got = 1;
        }
        content.resize(length);
        if (got < 0) {
            result = file_error("read", path, errno);
        } else {
            result = std::move(content);
        }
    }
    ::close(fd);
    return result;
}

int write_all(int fd, std::string_view content) {
    while (!content.empty()) {
        const ssize_t wrote = ::write(fd, content.data(), content.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        content.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return 0;
}

// A rename is on the disk when its folder is.
void sync_folder(const std::string &folder) {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    ::fsync(fd);
    ::close(fd);
}

}  // namespace

Result<std::string> read_state_file(const Session &session) {
    const std::string path = state_path(session);
    auto content = read_whole(path, kLargestStateBytes);
    if (!content && ::access(path.c_str(), F_OK) != 0 && errno == ENOENT) {
        return Error{fmt::format("session '{}' has no plan: {} is missing", printable(session.id), printable(path))};
    }
    if (content && content->empty()) return Error{fmt::format("{} is empty", printable(path))};
    return content;
}

Result<void> replace_file(const std::string &path, std::string_view content, Writers writers) {
    const std::size_t slash = path.rfind('/');
    const std::string folder = path.substr(0, slash);
    std::string unfinished = fmt::format("{}/.{}.new", folder, path.substr(slash + 1));
    if (writers == Writers::several) unfinished += fmt::format(".{}", ::getpid());
    ::unlink(unfinished.c_str());  // of a writer that was killed
    const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return file_error("write", path, errno);
    int error = write_all(fd, content);
    if (error == 0 && ::fsync(fd) != 0) error = errno;
    if (::close(fd) != 0 && error == 0) error = errno;
    if (error == 0 && ::rename(unfinished.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) {
        ::unlink(unfinished.c_str());
        return file_error("write", path, error);
    }
    sync_folder(folder);
    return {};
}

std::optional<std::string> current_session() {
    auto content = read_whole(planloop_home() + "/current_session", 4096);
    if (!content) return std::nullopt;
    while (!content->empty() && (content->back() == '\n' || content->back() == ' ' || content->back() == '\r')) {
        content->pop_back();
    }
    return valid_session_id(*content) ? std::optional(*content) : std::nullopt;
}

Result<void> set_current_session(std::string_view id) {
    return replace_file(planloop_home() + "/current_session", std::string(id) + '\n', Writers::several);
}

}  // namespace planloop
