#include "lockcore/jsonl.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/session.h"

namespace planloop {
namespace {

constexpr std::string_view kReplacement = "\xef\xbf\xbd";  // U+FFFD
constexpr std::size_t kReadBytes = std::size_t{64} << 10;

// How many bytes at the front of `text` are one character of well-formed UTF-8 (Unicode, table 3-7); 0: none.
std::size_t utf8_length(std::string_view text) {
    const auto byte = [&](std::size_t i) -> unsigned {
        return i < text.size() ? static_cast<unsigned char>(text[i]) : 0U;
    };
    const auto continues = [&](std::size_t i) { return (byte(i) & 0xc0U) == 0x80U; };
    const unsigned first = byte(0);
    if (first < 0x80) return 1;
    if (first >= 0xc2 && first <= 0xdf) return continues(1) ? 2 : 0;
    if (first >= 0xe0 && first <= 0xef) {
        const unsigned low = first == 0xe0 ? 0xa0 : 0x80;
        const unsigned high = first == 0xed ? 0x9f : 0xbf;  // surrogates are no characters
        return byte(1) >= low && byte(1) <= high && continues(2) ? 3 : 0;
    }
    if (first >= 0xf0 && first <= 0xf4) {
        const unsigned low = first == 0xf0 ? 0x90 : 0x80;
        const unsigned high = first == 0xf4 ? 0x8f : 0xbf;
        return byte(1) >= low && byte(1) <= high && continues(2) && continues(3) ? 4 : 0;
    }
    return 0;
}

// Characters that stand for themselves in a JSON string.
constexpr std::array<bool, 256> kPlain = [] {
    std::array<bool, 256> plain{};
    for (std::size_t byte = 0x20; byte < 0x7f; ++byte) plain[byte] = byte != '"' && byte != '\\';
    return plain;
}();

bool is_plain(char c) {
    return kPlain[static_cast<unsigned char>(c)];
}

void append_escape(std::string &out, char c) {
    switch (c) {
        case '"':
            out += "\\\"";
            return;
        case '\\':
            out += "\\\\";
            return;
        case '\n':
            out += "\\n";
            return;
        case '\t':
            out += "\\t";
            return;
        case '\r':
            out += "\\r";
            return;
        default:
            fmt::format_to(std::back_inserter(out), "\\u{:04x}", static_cast<unsigned char>(c));
    }
}

template <class Number>
void append_field(std::string &out, std::string_view key, Number value) {
    const fmt::format_int digits(value);
    out += ",\"";
    out += key;
    out += "\":";
    out.append(digits.data(), digits.size());
}

void append_text_field(std::string &out, std::string_view key, std::string_view value) {
    out += ",\"";
    out += key;
    out += "\":";
    append_json_string(out, value);
}

Error file_error(std::string_view what, const std::string &path, int error) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(error))};  // NOLINT(concurrency-mt-unsafe)
}

bool ends_with_newline(int fd) {
    struct stat status {};
    char last = '\n';
    if (fstat(fd, &status) != 0 || status.st_size == 0) return true;
    return pread(fd, &last, 1, status.st_size - 1) != 1 || last == '\n';
}

}  // namespace

void append_utf8(std::string &out, std::string_view text) {
    while (!text.empty()) {
        const auto end = std::find_if(text.begin(), text.end(), [](char c) { return (c & 0x80) != 0; });
        out.append(text.begin(), end);
        text.remove_prefix(static_cast<std::size_t>(end - text.begin()));
        if (text.empty()) return;
        const std::size_t length = utf8_length(text);
        out += length == 0 ? kReplacement : text.substr(0, length);
        text.remove_prefix(std::max<std::size_t>(length, 1));
    }
}

void append_json_string(std::string &out, std::string_view text) {
    out += '"';
    for (std::size_t i = 0; i < text.size();) {
        std::size_t run = i;
        while (run < text.size() && is_plain(text[run])) ++run;
        out += text.substr(i, run - i);
        if (run == text.size()) break;
        i = run;
        const std::size_t length = utf8_length(text.substr(i));
        if (length == 0) {
            out += kReplacement;
            ++i;
        } else if (length == 1) {
            append_escape(out, text[i++]);
        } else {
            out += text.substr(i, length);
            i += length;
        }
    }
    out += '"';
}

void append_milliseconds(std::string &out, std::int64_t ns) {
    const std::int64_t us = ns < 0 ? 0 : ns / 1000;
    const fmt::format_int whole(us / 1000);
    const auto rest = static_cast<unsigned>(us % 1000);
    const char decimals[] = {'.', static_cast<char>('0' + rest / 100), static_cast<char>('0' + rest / 10 % 10),
                             static_cast<char>('0' + rest % 10)};
    out.append(whole.data(), whole.size());
    out.append(decimals, rest % 10 != 0 ? 4U : rest % 100 != 0 ? 3U : 2U);
}

void append_lock_line(std::string &out, const LockLine &line) {
    out += "{\"timestamp\":\"";
    append_utc(out, line.utc_ns);
    out += '"';
    append_text_field(out, "event", line.event);
    append_text_field(out, "trace_id", line.trace_id);
    append_text_field(out, "operation", line.operation);
    append_text_field(out, "lock_entry_id", line.lock_entry_id);
    if (line.wait_ns >= 0) {
        out += ",\"wait_ms\":";
        append_milliseconds(out, line.wait_ns);
    }
    if (line.hold_ns >= 0) {
        out += ",\"hold_ms\":";
        append_milliseconds(out, line.hold_ns);
    }
    append_text_field(out, "level", line.event == "lock_failed" ? "WARNING" : "INFO");
    append_text_field(out, "session_id", line.session_id);
    append_field(out, "pid", line.pid);
    append_field(out, "tid", line.tid);
    append_text_field(out, "process", line.process);
    append_text_field(out, "source", line.source);
    out += ",\"lock\":{\"id\":";
    append_json_string(out, line.lock_id);
    append_text_field(out, "family", line.family);
    append_text_field(out, "path", line.path);
    append_field(out, "start", line.start);
    append_field(out, "len", line.len);
    out += '}';
    if (!line.mode.empty()) append_text_field(out, "mode", line.mode);
    if (line.wait_ns >= 0) append_field(out, "wait_ns", line.wait_ns);
    if (line.hold_ns >= 0) append_field(out, "hold_ns", line.hold_ns);
    if (!line.reason.empty()) append_text_field(out, "reason", line.reason);
    if (line.error != 0) append_field(out, "errno", line.error);
    if (!line.spool.empty()) append_text_field(out, "spool", line.spool);
    out += "}\n";
}

Result<LineAppender> LineAppender::open(const std::string &path) {
    // O_NONBLOCK: a FIFO under this name must not stop the program.
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NONBLOCK, 0600);
    if (fd < 0) return file_error("open", path, errno);
    struct stat status {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(fd);
        return Error{fmt::format("cannot write to {}: it is not a file", printable(path))};
    }
    // What a killed writer left of its last line must not swallow our first. A line that somebody is writing right now
    // looks the same for a moment, since the kernel grows the file page by page; taken for torn, it costs an empty
    // line.
    constexpr int kPatience = 64;
    for (int look = 0; look < kPatience && !ends_with_newline(fd); ++look) sched_yield();
    const bool torn = !ends_with_newline(fd);
    return LineAppender(fd, path, torn);
}

LineAppender::LineAppender(LineAppender &&other) noexcept
    : fd_(std::exchange(other.fd_, -1)), path_(std::move(other.path_)), torn_(other.torn_) {}

LineAppender &LineAppender::operator=(LineAppender &&other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(path_, other.path_);
    std::swap(torn_, other.torn_);
    return *this;
}

LineAppender::~LineAppender() {
    if (fd_ >= 0) ::close(fd_);
}

Result<void> LineAppender::append(std::string_view lines) {
    if (lines.empty()) return {};
    std::string mended;
    if (torn_) {
        mended.reserve(lines.size() + 1);
        mended += '\n';
        mended += lines;
        lines = mended;
    }
    ssize_t wrote = 0;
    do {
        wrote = ::write(fd_, lines.data(), lines.size());
    } while (wrote < 0 && errno == EINTR);
    if (wrote < 0) return file_error("write to", path_, errno);
    torn_ = static_cast<std::size_t>(wrote) < lines.size();
    if (torn_) return Error{fmt::format("cannot write to {}: no space for a whole line", printable(path_))};
    return {};
}

LineReader::LineReader(int fd, std::size_t longest_line) : fd_(fd), longest_line_(longest_line) {}

Result<LineReader> LineReader::open(const std::string &path, std::size_t longest_line) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return file_error("read", path, errno);
    struct stat status {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        ::close(fd);
        return Error{fmt::format("cannot read {}: it is not a file", printable(path))};
    }
    return LineReader(fd, longest_line);
}

LineReader::LineReader(LineReader &&other) noexcept {
    *this = std::move(other);
}

LineReader &LineReader::operator=(LineReader &&other) noexcept {
    std::swap(fd_, other.fd_);
    std::swap(longest_line_, other.longest_line_);
    std::swap(buffer_, other.buffer_);
    std::swap(begin_, other.begin_);
    std::swap(scanned_, other.scanned_);
    std::swap(end_, other.end_);
    std::swap(skipping_, other.skipping_);
    std::swap(oversized_, other.oversized_);
    return *this;
}

LineReader::~LineReader() {
    if (fd_ >= 0) ::close(fd_);
}

// Reads on behind what is buffered. A line that outgrows the limit is given up: its bytes are passed over.
bool LineReader::fill() {
    if (begin_ > 0) {
        std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
        end_ -= begin_;
        scanned_ -= begin_;
        begin_ = 0;
    }
    if (end_ > longest_line_) {
        if (!skipping_) ++oversized_;
        skipping_ = true;
        end_ = scanned_ = 0;
    }
    if (buffer_.size() < end_ + kReadBytes) buffer_.resize(end_ + kReadBytes);
    ssize_t got = 0;
    do {
        got = ::read(fd_, buffer_.data() + end_, buffer_.size() - end_);
    } while (got < 0 && errno == EINTR);
    if (got <= 0) return false;
    end_ += static_cast<std::size_t>(got);
    return true;
}

bool LineReader::next(std::string_view &line) {
    for (;;) {
        const void *found = scanned_ < end_ ? std::memchr(buffer_.data() + scanned_, '\n', end_ - scanned_) : nullptr;
        if (found == nullptr) {
            scanned_ = end_;
            if (!fill()) return false;
            continue;
        }
        const auto newline = static_cast<std::size_t>(static_cast<const char *>(found) - buffer_.data());
        line = std::string_view(buffer_.data() + begin_, newline - begin_);
        begin_ = scanned_ = newline + 1;
        if (skipping_) {
            skipping_ = false;  // the rest of a line that was too long
        } else if (line.size() > longest_line_) {
            ++oversized_;
        } else {
            return true;
        }
    }
}

bool LineReader::take_unterminated(std::string_view &line) {
    if (skipping_ || begin_ == end_) return false;
    line = std::string_view(buffer_.data() + begin_, end_ - begin_);
    begin_ = scanned_ = end_;
    return true;
}

}  // namespace planloop
