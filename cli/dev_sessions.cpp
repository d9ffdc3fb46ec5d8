// planloop dev sessions: what has been recorded, newest first.

#include <fmt/format.h>

#include "analysis/render/escape.h"
#include "analysis/render/table.h"
#include "cli/command.h"
#include "cli/output.h"
#include "lockcore/clock.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

std::string size_text(std::uint64_t bytes) {
    constexpr std::uint64_t kKilo = 1024;
    if (bytes < kKilo * kKilo) return fmt::format("{} KiB", (bytes + kKilo - 1) / kKilo);
    return fmt::format("{}.{} MiB", bytes / (kKilo * kKilo), bytes / kKilo * 10 / kKilo % 10);
}

}  // namespace

Result<int> run_dev_sessions(const Arguments &) {
    using Align = analysis::TextTable::Align;
    const std::vector<SessionSummary> sessions = list_sessions();
    if (sessions.empty()) {
        say(fmt::format("no sessions under {}; make one with planloop dev run -- CMD", planloop_home()));
        return kExitDone;
    }
    analysis::TextTable table({{"LAST RECORDED (UTC)"}, {"SIZE", Align::right}, {"SESSION"}});
    for (const SessionSummary &session : sessions) {
        std::string when = session.last_activity_ns == 0 ? "never" : format_utc(session.last_activity_ns).substr(0, 19);
        table.add_row({std::move(when), size_text(session.spool_bytes), analysis::terminal_text(session.id)});
    }
    std::string out;
    table.append_to(out);
    write_out(out);
    return kExitDone;
}

}  // namespace planloop::cli
