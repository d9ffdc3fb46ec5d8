// planloop update: changes a session's plan as a payload says. The plan is read, changed and written under the
// session's lock, so that of two updates at once none is lost.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <system_error>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/clock.h"
#include "lockcore/operation_trace.h"
#include "lockcore/plan_state.h"
#include "lockcore/session_lock.h"
#include "lockcore/state_file.h"

namespace planloop::cli {
namespace {

Result<std::string> read_payload(const std::optional<std::string> &path) {
    const std::string name = path ? printable(*path) : "the payload on standard input";
    const int fd = path ? ::open(path->c_str(), O_RDONLY | O_CLOEXEC) : STDIN_FILENO;
    std::string payload;
    ssize_t got = fd < 0 ? -1 : 1;
    char piece[std::size_t{64} << 10];
    while (got > 0 && payload.size() <= kLargestStateBytes) {
        got = ::read(fd, piece, sizeof(piece));
        if (got > 0) payload.append(piece, static_cast<std::size_t>(got));
        if (got < 0 && errno == EINTR) got = 1;
    }
    const int error = errno;
    if (path && fd >= 0) ::close(fd);
    if (got < 0) {
        return Error{fmt::format("cannot read {}: {}", name, std::strerror(error))};  // NOLINT(concurrency-mt-unsafe)
    }
    if (got > 0) return Error{fmt::format("{} is larger than {} MiB", name, kLargestStateBytes >> 20)};
    return payload;
}

std::optional<QueueStallSignal> signal_for(const std::optional<SessionLock::Stall> &stall) {
    if (!stall) return std::nullopt;
    return QueueStallSignal{fmt::format("{} kept the lock for {} ms and more while others waited",
                                        stall->holder.description(), stall->seen_for.count())};
}

// Under the lock.
Result<PlanUpdate> change(const Session &session, const std::string &payload, const SessionLock &lock, bool write) {
    const auto state = read_state_file(session);
    if (!state) return state.error();
    auto update = apply_update(*state, payload, session.id, utc_now_ns(), signal_for(lock.stall()));
    if (!update || !write) return update;
    if (auto written = replace_file(state_path(session), update->state); !written) return written.error();
    // The plan for people follows from the state: the next update writes it again.
    if (auto written = replace_file(plan_path(session), update->plan); !written) say(written.error().message);
    return update;
}

}  // namespace

Result<int> run_update(const Arguments &arguments) {
    survive_size_limit();
    start_operation_trace("update");
    const auto payload = read_payload(arguments.value("--file"));
    if (!payload) return failed(payload.error());
    const auto session = plan_session(arguments.value("--session"), session_in_payload(*payload));
    if (!session) return failed(session.error());
    if (!has_plan(*session)) {
        return failed({fmt::format("session '{}' has no plan: {} is missing", printable(session->id),
                                   printable(state_path(*session)))});
    }
    const bool dry_run = arguments.has("--dry-run");
    SessionLockOptions options;
    if (::isatty(STDERR_FILENO) != 0) {
        options.on_position = [&](std::size_t before_us) {
            say(fmt::format("waiting for session '{}', {} before us", printable(session->id), before_us));
        };
    }
    try {
        SessionLock lock(*session, options);
        const std::lock_guard guard(lock);
        const auto update = change(*session, *payload, lock, !dry_run);
        if (!update) return failed(update.error());
        write_out(fmt::format("{{\"status\":\"ok\",\"version\":{}{}}}\n", update->version,
                              dry_run ? ",\"dry_run\":true" : ""));
    } catch (const std::system_error &error) {
        return failed({error.what()});
    }
    return kExitDone;
}

}  // namespace planloop::cli
