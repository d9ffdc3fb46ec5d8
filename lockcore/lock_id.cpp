#include "lockcore/lock_id.h"

#include <fmt/format.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <iterator>

namespace planloop {
namespace {

// The number up to `end_mark` (or to the end, for 0), which is taken off the front with it.
bool take_number(std::string_view &text, int base, char end_mark, std::uint64_t &value) {
    const std::size_t length = end_mark == 0 ? text.size() : text.find(end_mark);
    if (length == std::string_view::npos || length == 0) return false;
    const auto [end, error] = std::from_chars(text.data(), text.data() + length, value, base);
    if (error != std::errc{} || end != text.data() + length) return false;
    text.remove_prefix(end_mark == 0 ? length : length + 1);
    return true;
}

}  // namespace

std::string format_lock_id(wire::Family family, std::uint64_t device, std::uint64_t inode) {
    const auto index = static_cast<std::size_t>(family);
    const char *name = index < wire::kFamilyCount ? wire::kFamilies[index].name : "unknown";
    return fmt::format("{}:{:02x}:{:02x}:{}", name, major(device), minor(device), inode);
}

std::optional<wire::Family> family_named(std::string_view name) {
    for (std::size_t i = 0; i < wire::kFamilyCount; ++i) {
        if (name == wire::kFamilies[i].name) return static_cast<wire::Family>(i);
    }
    return std::nullopt;
}

std::optional<LockId> parse_lock_id(std::string_view text) {
    const std::size_t colon = text.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto family = family_named(text.substr(0, colon));
    if (!family || wire::kFamilies[static_cast<std::size_t>(*family)].owner == wire::Owner::thread) return std::nullopt;
    text.remove_prefix(colon + 1);
    std::uint64_t major_number = 0;
    std::uint64_t minor_number = 0;
    std::uint64_t inode = 0;
    if (!take_number(text, 16, ':', major_number) || !take_number(text, 16, ':', minor_number) ||
        !take_number(text, 10, 0, inode)) {
        return std::nullopt;
    }
    const auto device = makedev(static_cast<unsigned>(major_number), static_cast<unsigned>(minor_number));
    return LockId{*family, device, inode};
}

}  // namespace planloop
