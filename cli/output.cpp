#include "cli/output.h"

#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <string>

#include "analysis/render/escape.h"

namespace planloop::cli {
namespace {

constexpr std::size_t kBufferBytes = std::size_t{64} << 10;

struct Out {
    std::string buffer;
    int error = 0;  // errno of the first write that failed
};

Out &out() {
    static Out instance;
    return instance;
}

int write_all(int fd, std::string_view text) {
    while (!text.empty()) {
        const ssize_t wrote = ::write(fd, text.data(), text.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return errno;
        text.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return 0;
}

void flush() {
    if (out().error == 0) out().error = write_all(STDOUT_FILENO, out().buffer);
    out().buffer.clear();
    // SIGPIPE ends us in write() as it does any filter; where it is ignored, EPIPE must be as quiet.
    if (out().error == EPIPE) ::_exit(128 + SIGPIPE);
}

}  // namespace

bool write_out(std::string_view text) {
    if (out().error != 0) return false;
    out().buffer.append(text);
    if (out().buffer.size() >= kBufferBytes) flush();
    return out().error == 0;
}

Result<void> finish_out() {
    flush();
    if (out().error == 0) return {};
    return Error{std::string("cannot write to standard output: ") + std::strerror(out().error)};
}

void say(std::string_view message) {
    std::string line = "planloop: ";
    analysis::append_terminal_text(line, message);
    line += '\n';
    static_cast<void>(write_all(STDERR_FILENO, line));
}

bool use_colour(std::string_view when) {
    if (when == "always") return true;
    if (when == "never") return false;
    const char *forbidden = ::getenv("NO_COLOR");
    const char *terminal = ::getenv("TERM");
    return (forbidden == nullptr || *forbidden == '\0') && ::isatty(STDOUT_FILENO) == 1 &&
           (terminal == nullptr || std::string_view(terminal) != "dumb");
}

std::size_t output_columns() {
    constexpr std::size_t kFewest = 40;
    winsize size{};
    if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0) {
        return std::max<std::size_t>(kFewest, size.ws_col);
    }
    const char *columns = ::getenv("COLUMNS");
    const long wanted = columns == nullptr ? 0 : std::strtol(columns, nullptr, 10);
    return wanted < static_cast<long>(kFewest) ? 80 : static_cast<std::size_t>(std::min(wanted, 1000L));
}

}  // namespace planloop::cli
