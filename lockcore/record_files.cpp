#include "lockcore/record_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>

namespace planloop {
namespace {

constexpr int kMostOfOneTrace = 10'000;

Error file_error(std::string_view what, const std::string &path, int error) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(error))};  // NOLINT(concurrency-mt-unsafe)
}

// A name for a file that is being written, which nobody else uses.
std::string unfinished_name(const std::string &folder) {
    static std::atomic<std::uint32_t> count{0};
    return fmt::format("{}/.unfinished.{}.{}", folder, ::gettid(), count.fetch_add(1, std::memory_order_relaxed));
}

// All of the content in a new file, or no file.
int write_new(const std::string &path, std::string_view content) {
    ::unlink(path.c_str());  // of a writer that was killed
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return errno;
    int error = 0;
    while (!content.empty() && error == 0) {
        const ssize_t wrote = ::write(fd, content.data(), content.size());
        if (wrote >= 0) {
            content.remove_prefix(static_cast<std::size_t>(wrote));
        } else if (errno != EINTR) {
            error = errno;
        }
    }
    if (::close(fd) != 0 && error == 0) error = errno;
    if (error != 0) ::unlink(path.c_str());
    return error;
}

std::string with_stem(std::string_view content, std::string_view stem) {
    constexpr std::string_view kPlaceholder = "{stem}";
    std::string out;
    for (;;) {
        const std::size_t found = content.find(kPlaceholder);
        out += content.substr(0, found);
        if (found == std::string_view::npos) return out;
        out += stem;
        content.remove_prefix(found + kPlaceholder.size());
    }
}

}  // namespace

Result<void> make_record_folder(const std::string &path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) == 0) {
        if (S_ISDIR(status.st_mode)) return {};
        return Error{fmt::format("cannot create {}: it is not a folder", printable(path))};
    }
    if (const std::size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
        if (auto made = make_record_folder(path.substr(0, slash)); !made) return made;
    }
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) return file_error("create", path, errno);
    return {};
}

Result<std::string> write_record(const std::string &folder, std::string_view trace_id,
                                 std::span<const RecordPart> parts) {
    if (auto made = make_record_folder(folder); !made) return made.error();
    for (int number = 1; number <= kMostOfOneTrace; ++number) {
        const std::string stem = number == 1 ? std::string(trace_id) : fmt::format("{}_{}", trace_id, number);
        const std::string main_path = fmt::format("{}/{}{}", folder, stem, parts.front().ending);
        if (::access(main_path.c_str(), F_OK) == 0) continue;
        std::vector<std::string> made;  // to be taken back
        int error = 0;
        std::string path;
        for (std::size_t i = parts.size(); i-- > 0 && error == 0;) {
            path = fmt::format("{}/{}{}", folder, stem, parts[i].ending);
            const std::string unfinished = unfinished_name(folder);
            error = parts[i].names_stem ? write_new(unfinished, with_stem(parts[i].content, stem))
                                        : write_new(unfinished, parts[i].content);
            if (error != 0) break;
            // link(2) fails where rename(2) would replace: of two writers one gets the name.
            if (::link(unfinished.c_str(), path.c_str()) != 0) error = errno;
            ::unlink(unfinished.c_str());
            if (error == 0) made.push_back(path);
        }
        if (error == 0) return stem;
        for (const std::string &file : made) ::unlink(file.c_str());
        if (error != EEXIST) return file_error("write", path, error);
    }
    return Error{fmt::format("cannot write {}/{}: too many of them", printable(folder), printable(trace_id))};
}

Result<void> replace_record(const std::string &path, std::string_view content) {
    const std::size_t slash = path.rfind('/');
    const std::string unfinished = unfinished_name(slash == std::string::npos ? "." : path.substr(0, slash));
    int error = write_new(unfinished, content);
    if (error == 0 && ::rename(unfinished.c_str(), path.c_str()) != 0) {
        error = errno;
        ::unlink(unfinished.c_str());
    }
    if (error != 0) return file_error("write", path, error);
    return {};
}

Result<std::string> read_record(const std::string &path, std::size_t most) {
    // O_NONBLOCK: a FIFO under this name must not stop us.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return file_error("read", path, errno);
    struct stat status {};
    std::string content;
    int error = ::fstat(fd, &status) != 0 ? errno : 0;
    const bool regular = error == 0 && S_ISREG(status.st_mode);
    const bool fits = regular && static_cast<std::uint64_t>(status.st_size) <= most;
    if (fits) {
        content.resize(static_cast<std::size_t>(status.st_size));
        std::size_t length = 0;
        while (length < content.size()) {
            const ssize_t got = ::read(fd, content.data() + length, content.size() - length);
            if (got < 0 && errno == EINTR) continue;
            if (got < 0) error = errno;
            if (got <= 0) break;
            length += static_cast<std::size_t>(got);
        }
        content.resize(length);
    }
    ::close(fd);
    if (error != 0) return file_error("read", path, error);
    if (!regular) return Error{fmt::format("cannot read {}: it is not a file", printable(path))};
    if (!fits) {
        return Error{fmt::format("cannot read {}: it has {} MiB, more than {}", printable(path), status.st_size >> 20,
                                 most >> 20)};
    }
    return content;
}

std::vector<std::string> list_records(const std::string &folder, std::string_view ending) {
    std::vector<std::string> names;
    DIR *entries = ::opendir(folder.c_str());
    if (entries == nullptr) return names;
    while (const dirent *entry = ::readdir(entries)) {  // NOLINT(concurrency-mt-unsafe): a folder of our own
        const std::string_view name = entry->d_name;
        if (name.front() == '.' || name.size() < ending.size()) continue;
        if (name.substr(name.size() - ending.size()) == ending) names.emplace_back(name);
    }
    ::closedir(entries);
    std::sort(names.begin(), names.end());
    return names;
}

}  // namespace planloop
