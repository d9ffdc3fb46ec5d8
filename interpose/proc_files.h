// Reads what the kernel tells of processes in /proc, without allocating, without libc, without touching errno.
// Async-signal-safe.
#ifndef PLANLOOP_INTERPOSE_PROC_FILES_H
#define PLANLOOP_INTERPOSE_PROC_FILES_H

#include <cstddef>
#include <cstdint>

namespace planloop::shim {

// Builds a small text in the caller's memory; what does not fit is left out and whole() says so.
class Text {
  public:
    Text(char *out, std::size_t room) noexcept : out_(out), room_(room) { out_[0] = '\0'; }
    Text &operator<<(const char *text) noexcept;
    Text &operator<<(std::uint64_t value) noexcept;
    bool whole() const noexcept { return !cut_; }
    std::size_t length() const noexcept { return length_; }
    void cut_back(std::size_t length) noexcept { out_[length_ = length] = '\0'; }

  private:
    void put(char c) noexcept;

    char *out_;
    std::size_t room_;
    std::size_t length_ = 0;
    bool cut_ = false;
};

// Takes a decimal number off the front of `text`.
std::uint64_t take_number(const char *&text) noexcept;
// Behind the word at the front of `text` and the spaces that follow it.
const char *next_word(const char *text) noexcept;
const char *skip_spaces(const char *text) noexcept;

// Whether /proc knows processes by the numbers that they have for us. In a PID namespace that kept the /proc of another
// one (unshare --pid without --mount-proc) a number means somebody else there, and only /proc/self is who we think.
bool proc_has_our_pids() noexcept;

// "/proc/PID/NAME" or "/proc/PID/NAME/NUMBER"; leads nowhere where /proc has other numbers.
class ProcPath {
  public:
    ProcPath(std::int32_t pid, const char *name) noexcept;
    ProcPath(std::int32_t pid, const char *name, int number) noexcept;
    const char *c_str() const noexcept { return path_; }

  private:
    char path_[64];
};

// A file's text, cut at `room` - 1 and ended by a zero byte; its length, 0 when it cannot be read.
std::size_t read_text(const char *path, char *out, std::size_t room) noexcept;
// Likewise where a link points.
std::size_t read_link(const char *path, char *out, std::size_t room) noexcept;

// proc(5), /proc/PID/stat.
struct ProcStat {
    std::int32_t parent = 0;       // 0: not known
    std::uint64_t start_time = 0;  // clock ticks since boot; 0: not known
};
ProcStat read_stat(std::int32_t pid) noexcept;

}  // namespace planloop::shim

#endif
