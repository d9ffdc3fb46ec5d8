#include "analysis/source/proc_text.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <memory>

#include "lockcore/numbered_entries.h"

namespace planloop::analysis {

std::optional<std::string> read_proc(const std::string &path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) return std::nullopt;
    std::string text;
    std::size_t used = 0;
    int error = 0;
    for (;;) {
        constexpr std::size_t kPiece = 16'384;
        if (text.size() - used < kPiece / 2) text.resize(used + kPiece);
        const ssize_t got = ::read(fd, text.data() + used, text.size() - used);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) error = errno;
        if (got <= 0) break;
        used += static_cast<std::size_t>(got);
    }
    ::close(fd);
    errno = error;
    if (error != 0) return std::nullopt;
    text.resize(used);
    return text;
}

std::optional<std::string> read_proc_link(const std::string &path) {
    char target[4096];
    const ssize_t length = ::readlink(path.c_str(), target, sizeof(target));
    if (length < 0) return std::nullopt;
    return std::string(target, static_cast<std::size_t>(length));
}

std::optional<std::vector<std::int32_t>> numbers_in(const std::string &folder) {
    std::vector<std::int32_t> numbers;
    if (!for_each_number(folder, [&](std::int32_t number) { numbers.push_back(number); })) return std::nullopt;
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

std::string_view take_word(std::string_view &rest) {
    constexpr std::string_view kBetween = " \t\n";
    rest.remove_prefix(std::min(rest.find_first_not_of(kBetween), rest.size()));
    const std::string_view word = rest.substr(0, rest.find_first_of(kBetween));
    rest.remove_prefix(word.size());
    return word;
}

std::optional<std::int64_t> to_number(std::string_view word, int base) {
    if (base == 16 && word.substr(0, 2) == "0x") word.remove_prefix(2);
    // Addresses and -1 as a 64-bit word are past what is signed, and wrap.
    const bool negative = !word.empty() && word.front() == '-';
    if (negative) word.remove_prefix(1);
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, base);
    if (word.empty() || error != std::errc() || end != word.data() + word.size()) return std::nullopt;
    return static_cast<std::int64_t>(negative ? ~value + 1 : value);
}

}  // namespace planloop::analysis
