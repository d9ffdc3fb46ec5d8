#include "cli/session_liveness.h"

#include <fmt/format.h>

#include "lockcore/clock.h"
#include "lockcore/process_status.h"

namespace planloop::cli {

std::function<bool(std::int32_t pid, std::uint64_t start_time)> liveness_of(const Session &session) {
    const BootId boot = boot_id();
    const std::string mark = fmt::format("-{:02x}{:02x}{:02x}{:02x}.", boot[0], boot[1], boot[2], boot[3]);
    bool of_this_boot = false;
    if (const auto spools = list_spools(session)) {
        for (const std::string &path : *spools) of_this_boot |= path.find(mark, path.rfind('/')) != std::string::npos;
    }
    if (!of_this_boot) return [](std::int32_t, std::uint64_t) { return false; };
    return [](std::int32_t pid, std::uint64_t start_time) { return process_runs(pid, start_time); };
}

}  // namespace planloop::cli
