// planloop update: changes a session's plan as a payload says. The plan is read, changed and written under the
// session's lock, so that of two updates at once none is lost. What goes wrong is an exception here, so that the report
// of it (lockcore/error_context.h) has the place where it did.

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <exception>
#include <mutex>
#include <utility>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "lockcore/clock.h"
#include "lockcore/error_context.h"
#include "lockcore/operation_trace.h"
#include "lockcore/plan_state.h"
#include "lockcore/session_lock.h"
#include "lockcore/span.h"
#include "lockcore/state_diff.h"
#include "lockcore/state_file.h"
#include "lockcore/validation_log.h"

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

Result<std::chrono::milliseconds> time_out_of(const Arguments &arguments) {
    constexpr double kMostSeconds = 1e6;
    const Result<std::optional<double>> seconds = seconds_of(arguments, "--timeout", kMostSeconds);
    if (!seconds) return seconds.error();
    if (!*seconds) return SessionLockOptions().time_out;
    return std::chrono::milliseconds(static_cast<std::int64_t>(**seconds * 1000));
}

struct Change {
    std::string before;
    PlanUpdate update;
};

// Under the lock. Throws what makes it impossible; nothing was written then.
Change change(const Session &session, const std::string &payload, const SessionLock &lock, bool write) {
    Change done;
    {
        Span span("load_state");
        done.before = value_or_throw(read_state_file(session));
        span.note("bytes", done.before.size());
    }
    {
        const Span span("apply_update", {{"payload_bytes", payload.size()}});
        ValidationFailure refused;
        auto update = apply_update(done.before, payload, session.id, utc_now_ns(), signal_for(lock.stall()), &refused);
        if (!update) record_validation_failure(session, refused);
        done.update = value_or_throw(std::move(update));
    }
    if (!write) return done;
    const Span span("save_state", {{"bytes", done.update.state.size()}, {"version", done.update.version}});
    value_or_throw(replace_file(state_path(session), done.update.state));
    // The plan for people follows from the state: the next update writes it again.
    if (auto written = replace_file(plan_path(session), done.update.plan); !written) say(written.error().message);
    return done;
}

// What is meant, and the payload for it; either may be what is wrong.
struct Request {
    Result<std::string> payload;
    Result<Session> session;
};

void update(const Request &request, std::chrono::milliseconds time_out, bool dry_run) {
    const Session session = value_or_throw(request.session);
    const std::string payload = value_or_throw(request.payload);
    if (!has_plan(session)) {
        throw OperationFailed(fmt::format("session '{}' has no plan: {} is missing", printable(session.id),
                                          printable(state_path(session))));
    }
    PLANLOOP_CAPTURE(payload);
    PLANLOOP_CAPTURE(dry_run);
    SessionLockOptions options;
    options.time_out = time_out;
    if (::isatty(STDERR_FILENO) != 0) {
        options.on_position = [&](std::size_t before_us) {
            say(fmt::format("waiting for session '{}', {} before us", printable(session.id), before_us));
        };
    }
    Change done;
    {
        SessionLock lock(session, options);
        const std::lock_guard guard(lock);
        done = change(session, payload, lock, !dry_run);
    }
    write_out(fmt::format("{{\"status\":\"ok\",\"version\":{}{}}}\n", done.update.version,
                          dry_run ? ",\"dry_run\":true" : ""));
    if (dry_run) return;
    const Span span("record_diff");
    if (const auto recorded = record_state_diff(session, done.before, done.update.state); !recorded) {
        static_cast<void>(recorded.error());  // a record is no reason to fail
    }
}

}  // namespace

Result<int> run_update(const Arguments &arguments) {
    const auto time_out = time_out_of(arguments);
    if (!time_out) return time_out.error();
    survive_size_limit();
    start_operation_trace("update");
    const auto wanted = arguments.value("--session");
    const auto payload = read_payload(arguments.value("--file"));
    const Request request{payload, plan_session(wanted, payload ? session_in_payload(*payload) : std::nullopt)};
    const auto session = request.session ? std::optional(*request.session) : session_for_records(wanted);
    if (!session) return failed(request.session.error());
    OperationRecording recording(*session, command_line("update", arguments));
    try {
        capture_error_context(*session, [&] { update(request, *time_out, arguments.has("--dry-run")); });
    } catch (const std::exception &error) {
        recording.fail(error.what());
        return failed({error.what()});
    }
    return kExitDone;
}

}  // namespace planloop::cli
