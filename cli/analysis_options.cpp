#include "cli/analysis_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "cli/own_pids.h"
#include "lockcore/clock.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

std::function<bool(std::int32_t pid, std::uint64_t start_time)> liveness_of(const Session &session) {
    const BootId boot = boot_id();
    const std::string mark = fmt::format("-{:02x}{:02x}{:02x}{:02x}.", boot[0], boot[1], boot[2], boot[3]);
    bool of_this_boot = false;
    if (const auto spools = list_spools(session)) {
        for (const std::string &path : *spools) of_this_boot |= path.find(mark, path.rfind('/')) != std::string::npos;
    }
    if (!of_this_boot) return [](std::int32_t, std::uint64_t) { return false; };
    return [others = std::optional<OwnPids>()](std::int32_t pid, std::uint64_t start_time) mutable {
        if (process_runs(pid, start_time)) return true;
        if (start_time == 0) return false;
        if (!others) others = pids_by_own_pid();
        const auto [first, last] = others->equal_range(pid);
        return std::any_of(first, last, [&](const auto &each) { return process_runs(each.second, start_time); });
    };
}

}  // namespace

analysis::AnalysisOptions options_for(const Session &session) {
    analysis::AnalysisOptions options;
    options.session = session.id;
    options.alive = liveness_of(session);
    options.now_utc_ns = utc_now_ns();
    return options;
}

}  // namespace planloop::cli
