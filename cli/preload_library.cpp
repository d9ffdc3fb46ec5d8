#include "cli/preload_library.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>
#include <system_error>

#include "lockcore/wire/shim_link.h"
#include "lockcore/wire/spool_format.h"

namespace planloop::cli {
namespace {

constexpr std::string_view kSeparators = " \t\n:";

bool names_library(std::string_view present, std::string_view library) {
    while (!present.empty()) {
        const std::string_view name = present.substr(0, present.find_first_of(kSeparators));
        if (name == library) return true;
        present.remove_prefix(name.size() < present.size() ? name.size() + 1 : name.size());
    }
    return false;
}

// A library of another build writes a recording that this program may not be able to read, beside the one that it
// makes.
Result<std::string> of_this_version(const std::string &path) {
    std::ifstream file(path, std::ios::binary);
    const std::string image{std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
    constexpr std::string_view kMark(wire::kFormatMark);
    const std::size_t at = image.find(kMark);
    const char own = static_cast<char>('0' + wire::kFormatVersion);
    if (at == std::string::npos || at + kMark.size() >= image.size()) {
        return Error{fmt::format("{} is not the library of this planloop", path)};
    }
    const char version = image[at + kMark.size()];
    if (version == own) return path;
    return Error{
        fmt::format("{} is of another version (it writes spool format {}, this planloop {}): install both anew", path,
                    version, own)};
}

}  // namespace

Result<std::string> preload_library() {
    std::error_code failed;
    if (const char *named = ::getenv("PLANLOOP_PRELOAD"); named != nullptr && *named != '\0') {
        const std::string path = std::filesystem::absolute(named, failed).string();
        if (::access(path.c_str(), R_OK) == 0) return of_this_version(path);
        return Error{fmt::format("cannot read {}, which PLANLOOP_PRELOAD names: {}", named, std::strerror(errno))};
    }
    const std::filesystem::path own = std::filesystem::read_symlink("/proc/self/exe", failed);
    const std::filesystem::path root = own.parent_path().parent_path();
    for (const char *place : {"interpose", PLANLOOP_LIBRARY_FOLDER}) {
        const std::filesystem::path path = root / place / "libplanloop_preload.so";
        if (::access(path.c_str(), R_OK) == 0) return of_this_version(path.string());
    }
    return Error{fmt::format("libplanloop_preload.so is neither in {} nor in {}", (root / "interpose").string(),
                             (root / PLANLOOP_LIBRARY_FOLDER).string())};
}

Result<std::string> preload_value(const std::string &library, const char *present) {
    if (library.find_first_of(kSeparators) != std::string::npos) {
        return Error{fmt::format("the path {} holds a space or a colon, which LD_PRELOAD cannot express", library)};
    }
    if (present == nullptr || *present == '\0') return library;
    if (names_library(present, library)) return std::string(present);
    return fmt::format("{}:{}", library, present);
}

}  // namespace planloop::cli
