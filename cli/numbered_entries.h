// The entries of a folder whose names are numbers: the processes of /proc, the descriptors of /proc/PID/fd. A folder
// that cannot be read has none.
#ifndef PLANLOOP_CLI_NUMBERED_ENTRIES_H
#define PLANLOOP_CLI_NUMBERED_ENTRIES_H

#include <dirent.h>

#include <charconv>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace planloop::cli {

template <class Visit>
void for_each_number(const std::string &folder, Visit visit) {
    const std::unique_ptr<DIR, int (*)(DIR *)> open(::opendir(folder.c_str()), &::closedir);
    while (open != nullptr) {
        const dirent *entry = ::readdir(open.get());  // NOLINT(concurrency-mt-unsafe): this DIR is ours alone
        if (entry == nullptr) return;
        int number = 0;
        const std::string_view name(entry->d_name);
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
        if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) visit(number);
    }
}

}  // namespace planloop::cli

#endif
