// planloop.jsonl: one JSON object a line, appended by many programs at once and read by programs of other makers, so
// names and types of its fields are fixed. Here are the writer of lock events, the appender and the reader of lines.
//
// Writing is by hand: a line costs about a microsecond and the shape is flat. Text that is no UTF-8 (paths are bytes)
// becomes valid JSON with U+FFFD in place of what is broken.
//
// Errors: Result with one line. Threads: one user per object; any number of processes may append to one file, since
// each line is one write(2) with O_APPEND. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_JSONL_H
#define PLANLOOP_LOCKCORE_JSONL_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/result.h"

namespace planloop {

// One lock event; fields borrowed for the call. Empty text and times below 0 are left out where the format allows it.
struct LockLine {
    std::int64_t utc_ns = 0;
    std::string_view event{};  // lock_requested, lock_acquired, lock_released, lock_failed
    std::string_view trace_id{}, operation{}, lock_entry_id{};
    std::int64_t wait_ns = -1;  // lock_acquired, lock_failed
    std::int64_t hold_ns = -1;  // lock_released
    std::string_view session_id{};
    std::int32_t pid = 0, tid = 0;
    std::string_view process{};
    std::string_view source{};  // who saw it: "preload" for the shim, else the instrumented program's library
    std::string_view lock_id{}, family{}, path{};
    std::uint64_t start = 0, len = 0;
    std::string_view mode{};    // shared, exclusive
    std::string_view reason{};  // lock_released: unlock, close, exit, exec, killed, converted, lost
    std::int32_t error = 0;     // lock_failed
    std::string_view spool{};   // name of the spool file that it was exported from; empty: written as it happened
};

void append_utf8(std::string &out, std::string_view text);         // U+FFFD in place of what is broken
void append_json_string(std::string &out, std::string_view text);  // with its quotes
void append_milliseconds(std::string &out, std::int64_t ns);       // 2344.1: a number, to the microsecond
void append_lock_line(std::string &out, const LockLine &line);     // with its newline

class LineAppender {
  public:
    static Result<LineAppender> open(const std::string &path);  // made 0600 if missing
    LineAppender(LineAppender &&other) noexcept;
    LineAppender &operator=(LineAppender &&other) noexcept;
    LineAppender(const LineAppender &) = delete;
    LineAppender &operator=(const LineAppender &) = delete;
    ~LineAppender();

    // One or more whole lines, in one write. After a write that the disk cut short, the next one starts a new line.
    Result<void> append(std::string_view lines);

  private:
    LineAppender(int fd, std::string path, bool torn) : fd_(fd), path_(std::move(path)), torn_(torn) {}
    int fd_ = -1;
    std::string path_;
    bool torn_ = false;
};

class LineReader {
  public:
    static constexpr std::size_t kLongestLine = std::size_t{1} << 20;

    static Result<LineReader> open(const std::string &path, std::size_t longest_line = kLongestLine);
    LineReader(LineReader &&other) noexcept;
    LineReader &operator=(LineReader &&other) noexcept;
    LineReader(const LineReader &) = delete;
    LineReader &operator=(const LineReader &) = delete;
    ~LineReader();

    // The next whole line without its newline, valid until the next call; false at the end of what is written so far:
    // later calls go on from there.
    bool next(std::string_view &line);
    // Bytes after the last newline, taken as a line; false when there are none (or too many).
    bool take_unterminated(std::string_view &line);
    std::uint64_t oversized() const noexcept { return oversized_; }  // lines passed over because of their length

  private:
    LineReader(int fd, std::size_t longest_line);
    bool fill();

    int fd_ = -1;
    std::size_t longest_line_ = kLongestLine;
    std::vector<char> buffer_;
    std::size_t begin_ = 0, scanned_ = 0, end_ = 0;  // of what is buffered
    bool skipping_ = false;                          // inside a line that is too long
    std::uint64_t oversized_ = 0;
};

}  // namespace planloop

#endif
