#include "cli/process_status.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>
#include <string_view>

namespace planloop::cli {

std::optional<ProcessStatus> process_status(pid_t pid) {
    const int fd = ::open(("/proc/" + std::to_string(pid) + "/stat").c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return std::nullopt;
    char bytes[1024];
    const ssize_t got = ::read(fd, bytes, sizeof(bytes));
    ::close(fd);
    if (got <= 0) return std::nullopt;
    std::string_view text(bytes, static_cast<std::size_t>(got));
    // Field 2, the command, may hold spaces and parentheses; what follows its last ')' is plain.
    const std::size_t command_end = text.rfind(')');
    if (command_end == std::string_view::npos || command_end + 2 >= text.size()) return std::nullopt;
    text.remove_prefix(command_end + 2);
    ProcessStatus status;
    status.state = text[0];
    for (int field = 3; field < 22; ++field) {
        if (field == 4) std::from_chars(text.data(), text.data() + text.size(), status.parent);
        const std::size_t space = text.find(' ');
        if (space == std::string_view::npos) return std::nullopt;
        text.remove_prefix(space + 1);
    }
    const auto parsed = std::from_chars(text.data(), text.data() + text.size(), status.start_time);
    if (parsed.ec != std::errc()) return std::nullopt;
    return status;
}

std::string command_line(pid_t pid) {
    std::ifstream file("/proc/" + std::to_string(pid) + "/cmdline", std::ios::binary);
    std::string words{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    while (!words.empty() && words.back() == '\0') words.pop_back();
    std::replace(words.begin(), words.end(), '\0', ' ');
    constexpr std::size_t kMost = 4096;
    return words.substr(0, kMost);
}

bool process_runs(pid_t pid, std::uint64_t start_time) {
    const std::optional<ProcessStatus> status = process_status(pid);
    if (!status || status->state == 'Z' || status->state == 'X') return false;
    return start_time == 0 || status->start_time == start_time;
}

}  // namespace planloop::cli
