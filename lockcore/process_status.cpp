#include "lockcore/process_status.h"

#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

#include "lockcore/descriptor.h"

namespace planloop {
namespace {

std::optional<ProcessStatus> status_in(const std::string &path) {
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    char bytes[1024];
    const ssize_t got = ::read(file.get(), bytes, sizeof(bytes));
    if (got <= 0) return std::nullopt;
    return parse_process_status({bytes, static_cast<std::size_t>(got)});
}

// A process may end between any two of these calls: what could be read then counts. (A file stream's iterators throw.)
std::string arguments_in(const std::string &path) {
    constexpr std::size_t kMost = 4096;
    const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    std::string text(kMost, '\0');
    std::size_t length = 0;
    while (length < kMost) {
        const ssize_t got = ::read(file.get(), text.data() + length, kMost - length);
        if (got <= 0) break;
        length += static_cast<std::size_t>(got);
    }
    text.resize(length);
    return spaced_arguments(std::move(text));
}

}  // namespace

std::optional<ProcessStatus> parse_process_status(std::string_view text) {
    // Field 2, the name, may hold spaces and parentheses; what follows its last ')' is plain.
    const std::size_t name_begin = text.find('(');
    const std::size_t name_end = text.rfind(')');
    if (name_begin == std::string_view::npos || name_end == std::string_view::npos || name_end + 2 >= text.size())
        return std::nullopt;
    ProcessStatus status;
    status.name = text.substr(name_begin + 1, name_end - name_begin - 1);
    text.remove_prefix(name_end + 2);
    status.state = text[0];
    for (int field = 3;; ++field) {
        const auto take = [&](auto &number) {
            return std::from_chars(text.data(), text.data() + text.size(), number).ec == std::errc();
        };
        if (field == 4) take(status.parent);
        if (field == 22 && !take(status.start_time)) return std::nullopt;
        if (field == 28) take(status.image);
        const std::size_t space = text.find(' ');
        if (space == std::string_view::npos) return field < 22 ? std::nullopt : std::optional(status);
        if (field == 28) return status;
        text.remove_prefix(space + 1);
    }
}

std::optional<ProcessStatus> process_status(pid_t pid) {
    return status_in("/proc/" + std::to_string(pid) + "/stat");
}

std::optional<ProcessStatus> own_process_status() {
    return status_in("/proc/self/stat");
}

std::string spaced_arguments(std::string cmdline) {
    while (!cmdline.empty() && cmdline.back() == '\0') cmdline.pop_back();
    std::replace(cmdline.begin(), cmdline.end(), '\0', ' ');
    return cmdline;
}

std::string command_line_of(pid_t pid) {
    return arguments_in("/proc/" + std::to_string(pid) + "/cmdline");
}

std::string own_command_line() {
    return arguments_in("/proc/self/cmdline");
}

bool process_runs(pid_t pid, std::uint64_t start_time) {
    if (const std::optional<ProcessStatus> status = process_status(pid))
        return !status->ended() && (start_time == 0 || status->start_time == start_time);
    return pid > 0 && (::kill(pid, 0) == 0 || errno != ESRCH);
}

}  // namespace planloop
