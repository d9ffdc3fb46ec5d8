// The entries of a folder whose names are numbers: the processes of /proc, the descriptors of /proc/PID/fd.
#ifndef PLANLOOP_LOCKCORE_NUMBERED_ENTRIES_H
#define PLANLOOP_LOCKCORE_NUMBERED_ENTRIES_H

#include <dirent.h>

#include <charconv>
#include <memory>
#include <string>
#include <string_view>
#include <system_error>

namespace planloop {

// Calls visit(number) for each. False, with errno, when the folder cannot be read. Threads: safe.
template <class Visit>
bool for_each_number(const std::string &folder, Visit visit) {
    const std::unique_ptr<DIR, int (*)(DIR *)> open(::opendir(folder.c_str()), &::closedir);
    if (open == nullptr) return false;
    while (const dirent *entry = ::readdir(open.get())) {  // NOLINT(concurrency-mt-unsafe): this DIR is ours alone
        int number = 0;
        const std::string_view name(entry->d_name);
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
        if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) visit(number);
    }
    return true;
}

}  // namespace planloop

#endif
