#include "cli/own_pids.h"

#include <fmt/format.h>

#include <charconv>
#include <fstream>
#include <string>

#include "lockcore/numbered_entries.h"

namespace planloop::cli {

OwnPids pids_by_own_pid() {
    OwnPids found;
    for_each_number("/proc", [&](pid_t pid) {
        std::ifstream status(fmt::format("/proc/{}/status", pid));
        for (std::string line; std::getline(status, line);) {
            if (line.compare(0, 6, "NSpid:") != 0) continue;
            const std::size_t last = line.find_last_of('\t') + 1;
            pid_t own = 0;
            std::from_chars(line.data() + last, line.data() + line.size(), own);
            found.emplace(own, pid);
            break;
        }
    });
    return found;
}

}  // namespace planloop::cli
