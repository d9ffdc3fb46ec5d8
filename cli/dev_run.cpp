// planloop dev run: runs a program with the recording library preloaded, and says at the end what was seen.
//
// Whatever stands in the way of recording must not stand in the way of the program: then it runs as if planloop were
// not there, in planloop's own place, and stderr says so before.

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <system_error>
#include <vector>

#include "cli/child.h"
#include "cli/command.h"
#include "cli/fail_on.h"
#include "cli/final_report.h"
#include "cli/output.h"
#include "cli/preload_library.h"
#include "cli/program.h"
#include "cli/supervised_spool.h"
#include "cli/supervisor.h"
#include "lockcore/record_files.h"
#include "lockcore/session.h"
#include "lockcore/wire/size_text.h"

namespace planloop::cli {
namespace {

// Of a program's end by what was recorded: a second, less what ending takes.
constexpr std::chrono::milliseconds kLongestHoldUp{850};

int failed_to_start(const std::string &name, int error) {
    say(exec_failure_text(name, error));
    return exec_failure_status(error);
}

int run_unrecorded(const std::vector<std::string> &program, std::string_view why) {
    say(fmt::format("nothing is recorded: {}", why));
    return failed_to_start(program[0], become(program));
}

// All that recording needs, made before the program starts.
struct Preparation {
    Session session;
    std::string preload;
    std::unique_ptr<SupervisedSpool> spool;
};

Result<Preparation> prepare(const std::string &session_id, const SpoolSize &size) {
    Preparation made;
    const char *off = ::getenv("PLANLOOP_NO_RECORDING");
    if (off != nullptr && std::string_view(off) == "1") return Error{"PLANLOOP_NO_RECORDING is set"};
    const Result<std::string> library = preload_library();
    if (!library) return library.error();
    Result<std::string> preload = preload_value(*library, ::getenv("LD_PRELOAD"));
    if (!preload) return preload.error();
    made.preload = std::move(*preload);
    Result<Session> session = create_session(session_id);
    if (!session) return session.error();
    made.session = std::move(*session);
    Result<std::unique_ptr<SupervisedSpool>> spool = SupervisedSpool::open(made.session, size);
    if (!spool) return spool.error();
    made.spool = std::move(*spool);
    return made;
}

// A program built with AddressSanitizer refuses to run behind another preloaded library, in which it fears hooks on
// malloc; ours has none.
std::string asan_options() {
    const char *own = ::getenv("ASAN_OPTIONS");
    std::string options = own != nullptr ? own : "";
    if (options.find("verify_asan_link_order") != std::string::npos) return options;
    if (!options.empty()) options += ':';
    options += "verify_asan_link_order=0";
    return options;
}

Environment environment_of(const Preparation &made) {
    std::error_code failed;
    std::string home = std::filesystem::absolute(planloop_home(), failed).string();
    if (failed) home = planloop_home();
    return {{"LD_PRELOAD", made.preload},
            {"PLANLOOP_SESSION", made.session.id},
            {"PLANLOOP_HOME", home},
            {"ASAN_OPTIONS", asan_options()}};
}

Result<std::uint64_t> size_of(const Arguments &arguments, const char *option, std::uint64_t least) {
    const std::optional<std::string> given = arguments.value(option);
    if (!given) return std::uint64_t{0};
    std::uint64_t bytes = 0;
    if (!wire::parse_size(given->c_str(), bytes))
        return Error{fmt::format("{} wants a size, as 64M or 2G, not '{}'", option, *given)};
    if (bytes < least) return Error{fmt::format("{} {} is too small: {}K at least", option, *given, least >> 10)};
    return bytes;
}

Result<SpoolSize> spool_size(const Arguments &arguments) {
    constexpr std::uint64_t kLeastSpoolBytes = std::uint64_t{64} << 10;
    const Result<std::uint64_t> most = size_of(arguments, "--max-size", kLeastSpoolBytes);
    if (!most) return most.error();
    const Result<std::uint64_t> ring = size_of(arguments, "--ring", wire::kSmallestRingBytes);
    if (!ring) return ring.error();
    if (*most != 0 && *ring != 0) return Error{"--ring and --max-size: one of them, a ring has its size"};
    constexpr std::uint64_t kMostBytes = wire::SpoolWriter::kWindowBytes * wire::SpoolWriter::kMostWindows;
    if (std::max(*most, *ring) > kMostBytes) return Error{"a spool has 64G at most"};
    return SpoolSize{*most, *ring};
}

}  // namespace

Result<int> run_dev_run(const Arguments &arguments) {
    const std::vector<std::string> &program = arguments.program;
    const Result<std::vector<std::string>> fatal = kinds_to_fail_on(arguments);
    if (!fatal) return fatal.error();
    const OnDeadlock on_deadlock =
        arguments.value("--on-deadlock") == "terminate" ? OnDeadlock::terminate : OnDeadlock::report;
    const std::optional<std::string> wanted = arguments.value("--session");
    if (wanted && !valid_session_id(*wanted)) {
        return Error{fmt::format("'{}' cannot be a session's name: no slash, no dot in front, 1 to {} bytes", *wanted,
                                 kLongestSessionId)};
    }
    const Result<SpoolSize> size = spool_size(arguments);
    if (!size) return size.error();
    const std::string path = find_program(program[0]);
    if (path.empty()) return failed_to_start(program[0], ENOENT);
    if (::access(path.c_str(), X_OK) != 0 || std::filesystem::is_directory(path)) {
        return failed_to_start(program[0], EACCES);
    }

    Result<Preparation> made = prepare(wanted.value_or(session_name_for(program[0])), *size);
    if (!made) return run_unrecorded(program, made.error().message);
    Environment environment = environment_of(*made);
    if (arguments.has("--capture-crashes")) {
        if (const auto folder = make_record_folder(crash_dir(made->session)); !folder) return folder.error();
        environment.emplace_back("PLANLOOP_CAPTURE_CRASHES", "1");
    }
    const std::optional<Obstacle> obstacle = obstacle_to_tracing(path);
    if (obstacle) {
        say(fmt::format("{} is not traced: {}", obstacle->path, obstacle->reason));
        if (obstacle->preload_harms) {
            environment.erase(std::remove_if(environment.begin(), environment.end(),
                                             [](const auto &variable) { return variable.first == "LD_PRELOAD"; }),
                              environment.end());
        }
    }

    const SignalState before = take_signals(supervised_signals());
    const Result<Child> child = start_child(program, environment, before);
    if (!child) return child.error();
    if (child->exec_error != 0) return failed_to_start(program[0], child->exec_error);
    ::signal(SIGPIPE, SIG_IGN);
    ::signal(SIGXFSZ, SIG_IGN);
    if (obstacle) made->spool->write_not_traced(child->pid, obstacle->cause, obstacle->path);
    const Result<Supervised> result = supervise(made->session, *made->spool, *child, on_deadlock);
    if (!result) {
        say(fmt::format("only the program's own records are kept: {}", result.error().message));
        int status = 0;
        while (::waitpid(child->pid, &status, 0) < 0 && errno == EINTR) {
        }
        if (status == 0 && !fatal->empty()) end_like(kExitBadInput << 8);  // nobody looked for findings
        end_like(status);
    }
    const std::string spool_path = made->spool->path();
    made->spool.reset();
    std::optional<std::chrono::steady_clock::time_point> until;
    if (fatal->empty()) until = result->ended_at + kLongestHoldUp;
    const std::optional<analysis::Report> report = tell_verdict(made->session, spool_path, result->outcome, until);
    if (result->terminated) say("the program was ended because of the deadlock (--on-deadlock=terminate)");
    const bool succeeded = WIFEXITED(result->wait_status) && WEXITSTATUS(result->wait_status) == 0;
    if (succeeded && (result->terminated || (report && has_finding(*report, *fatal)))) end_like(kExitFinding << 8);
    if (succeeded && !report && !fatal->empty()) end_like(kExitBadInput << 8);
    end_like(result->wait_status);
}

}  // namespace planloop::cli
