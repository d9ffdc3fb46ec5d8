#include "cli/output_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <memory>
#include <utility>

#include "cli/output.h"

namespace planloop::cli {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{1} << 18;

// What a symbolic link leads to is replaced, not the link.
std::string resolved(const std::string &path) {
    const std::unique_ptr<char, void (*)(void *)> real(::realpath(path.c_str(), nullptr), ::free);
    return real ? std::string(real.get()) : path;
}

std::string aside_of(const std::string &path) {
    const std::size_t name = path.rfind('/') + 1;  // npos + 1 is 0
    return fmt::format("{}.{}.{}.tmp", path.substr(0, name), path.substr(name, 200), ::getpid());
}

}  // namespace

Result<OutputFile> OutputFile::open(const std::optional<std::string> &path, bool replace) {
    OutputFile file;
    if (!path || *path == "-") return file;
    if (path->empty()) return Error{"-o wants the name of a file"};
    file.replace_ = replace;
    ::signal(SIGXFSZ, SIG_IGN);  // a limit on file sizes is an error to tell, not an end that leaves half a file
    file.path_ = resolved(*path);
    struct stat known {};
    const bool exists = ::stat(file.path_.c_str(), &known) == 0;
    if (exists && S_ISDIR(known.st_mode)) return Error{fmt::format("{} is a folder", *path)};
    if (exists && S_ISREG(known.st_mode) && !replace)
        return Error{fmt::format("{} exists; --force writes over it", *path)};
    const bool in_place = exists && !S_ISREG(known.st_mode);
    if (!in_place) file.aside_ = aside_of(file.path_);
    const char *const name = in_place ? file.path_.c_str() : file.aside_.c_str();
    file.fd_ = ::open(name, O_WRONLY | O_CLOEXEC | (in_place ? 0 : O_CREAT | O_TRUNC), 0666);
    if (file.fd_ < 0) {
        file.aside_.clear();
        return file.failed(errno);
    }
    return file;
}

OutputFile::OutputFile(OutputFile &&other) noexcept
    : path_(std::move(other.path_)),
      aside_(std::exchange(other.aside_, {})),
      buffer_(std::move(other.buffer_)),
      fd_(std::exchange(other.fd_, -1)),
      error_(other.error_),
      replace_(other.replace_) {}

OutputFile::~OutputFile() {
    if (fd_ >= 0) ::close(fd_);
    if (!aside_.empty()) ::unlink(aside_.c_str());
}

bool OutputFile::write(std::string_view text) {
    if (path_.empty()) return write_out(text);
    if (error_ != 0) return false;
    buffer_ += text;
    return buffer_.size() < kBufferBytes || flush();
}

bool OutputFile::flush() {
    std::string_view rest = buffer_;
    while (!rest.empty() && error_ == 0) {
        const ssize_t written = ::write(fd_, rest.data(), rest.size());
        if (written >= 0) {
            rest.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            error_ = errno;
        }
    }
    buffer_.clear();
    return error_ == 0;
}

Result<void> OutputFile::finish() {
    if (path_.empty()) return {};
    flush();
    if (error_ == 0 && !aside_.empty() && ::fsync(fd_) != 0) error_ = errno;
    if (::close(std::exchange(fd_, -1)) != 0 && error_ == 0) error_ = errno;
    if (error_ != 0) return failed(error_);
    if (aside_.empty()) return {};
    // Somebody may have made the file meanwhile.
    int renamed = ::renameat2(AT_FDCWD, aside_.c_str(), AT_FDCWD, path_.c_str(), replace_ ? 0 : RENAME_NOREPLACE);
    if (renamed != 0 && errno == EINVAL) renamed = ::rename(aside_.c_str(), path_.c_str());  // no such flag there
    if (renamed != 0) return failed(errno);
    aside_.clear();
    return {};
}

Error OutputFile::failed(int error) const {
    return Error{fmt::format("cannot write {}: {}", path_, ::strerror(error))};
}

}  // namespace planloop::cli
