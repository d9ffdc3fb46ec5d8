#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "cli/command.h"

namespace planloop::cli {
namespace {

constexpr Option kSessionToRecord{"--session", "S",
                                  "session to record into, made if missing (named by program and time)", ""};
constexpr Option kSessionToShow{"--session", "S", "its id, a prefix that only it has, or latest (the default)", ""};
constexpr Option kColour{"--color", "WHEN", "auto (the default: only on a terminal), always or never",
                         "auto|always|never"};
constexpr Option kJson{"--json", "", "one JSON object, schema planloop.locks/1; --format json", ""};
constexpr Option kFailOn{"--fail-on", "KINDS",
                         "exit with status 1 when there is such a finding; kinds, comma-separated", ""};
constexpr Option kLongWait{"--long-wait", "SECONDS", "a wait from this on is a finding long_wait; default 10", ""};
constexpr Option kLongHold{"--long-hold", "SECONDS", "a hold from this on is a finding long_hold; default 10", ""};
constexpr Option kMaxSize{"--max-size", "SIZE",
                          "stop recording at this size (planloop.jsonl aside), as 500M; default 1G", ""};
constexpr Option kRing{"--ring", "SIZE", "flight recorder: keep the newest SIZE, as 64M; at least 256K", ""};
constexpr Option kLimit{"--limit", "N", "at most N entries of the timeline, the earliest; says how many are left out",
                        ""};
constexpr Option kSummary{"--summary", "", "leave the timeline out", ""};

constexpr Option kPlanSession{"--session", "S", "its id or a prefix that only it has; default: the current one", ""};
constexpr Option kPayload{"--file", "F", "read the payload from F; default: standard input", ""};
constexpr Option kTimeOut{"--timeout", "SECONDS", "how long to wait for the lock; default 30", ""};
constexpr Option kDryRun{"--dry-run", "", "say what would come of it, write nothing", ""};
constexpr Option kStatusJson{"--json", "", "one JSON object", ""};
constexpr Option kName{"--name", "N", "its name; the id begins with it", ""};
constexpr Option kId{"--id", "ID", "exactly this id", ""};
constexpr Option kTitle{"--title", "T", "a line that says what it is about", ""};
constexpr Option kPurpose{"--purpose", "P", "what is to be reached", ""};

constexpr Option kOlderThan{"--older-than", "TIME", "delete what was last recorded longer ago, as 30d, 12h or 90m", ""};
constexpr Option kTotalSize{"--max-size", "SIZE", "then delete the oldest until all together are that small, as 2G",
                            ""};
constexpr Option kCompress{"--compress", "", "compress what stays; it is read as before", ""};
constexpr Option kPruneDryRun{"--dry-run", "", "say what would be done, do nothing", ""};
constexpr std::array kPruneOptions{kOlderThan, kTotalSize, kCompress, kPruneDryRun};

constexpr std::array kUpdateOptions{kPlanSession, kPayload, kTimeOut, kDryRun};
constexpr std::array kStatusOptions{kPlanSession, kStatusJson};
constexpr std::array kCreateOptions{kName, kId, kTitle, kPurpose};
constexpr std::array kDoctorOptions{
    Option{"--lock", "FILE", "a lock file that the program will use; it need not be there yet", ""},
    Option{"--json", "", "one JSON object, schema planloop.doctor/1", ""},
};
constexpr std::array kPlanOptions{kPlanSession};
constexpr Option kOnDeadlock{"--on-deadlock", "WHAT",
                             "when one hangs: report it (the default), or terminate the program too",
                             "report|terminate"};
constexpr Option kFollow{"--follow", "", "show the timeline as it happens, until the session's programs are gone", ""};
constexpr Option kWaiting{"--waiting", "", "show only who waits now, for how long, and for whom", ""};
constexpr Option kCaptureCrashes{"--capture-crashes", "",
                                 "of a program that dies by a fault, keep where it was and what it held locked", ""};
constexpr std::array kRunOptions{kSessionToRecord, kFailOn, kOnDeadlock, kMaxSize, kRing, kCaptureCrashes};
constexpr Option kSystem{"--system", "", "instead of a session: all file locks of this machine, traced or not", ""};
constexpr Option kLocksFormat{"--format", "F", "table (the default), json, jsonl (a line each event) or dot (Graphviz)",
                              "table|json|jsonl|dot"};
constexpr std::array kLocksOptions{
    kSessionToShow,
    kSystem,
    kFollow,
    kWaiting,
    kLocksFormat,
    kJson,
    kSummary,
    kLimit,
    kColour,
    kFailOn,
    kLongWait,
    kLongHold,
    Option{"--lock", "PATH", "show only what is about this lock file, or lock of this id", ""},
    Option{"--pid", "PIDS", "show only what is about these processes, as 4711,4712", ""},
    Option{"--process", "NAMES", "the same by name, as make,cc1", ""},
    Option{"--trace", "IDS", "the same by trace id or its beginning", ""},
    Option{"--since", "TIME", "show only what is later, as 08:00:02.350 or 2026-11-22T08:00:02 (UTC)", ""},
    Option{"--until", "TIME", "show only what is not later", ""},
    Option{"--family", "NAMES", "show only these families of locks, as flock,posix", ""},
    Option{"--finding", "KINDS", "show only findings of these kinds, as deadlock", ""},
};

constexpr Option kOutput{"-o", "FILE", "write to FILE; default: standard output", ""};
constexpr Option kForce{"--force", "", "write over a FILE that exists", ""};
constexpr Option kFormat{"--format", "F", "the format to write, see --list", ""};
constexpr Option kListFormats{"--list", "", "list the formats, and what opens each", ""};
constexpr std::array kExportOptions{kSessionToShow, kFormat, kOutput, kForce, kListFormats};
constexpr std::array kReportOptions{kSessionToShow, kOutput, kForce};

constexpr std::array kCommands{
    Command{
        "dev run", "run a program and record every file lock that it and its children take", kRunOptions, true,
        "The program is not changed and needs no rights: a library is preloaded into it. planloop ends with the\n"
        "program's own exit status, or by the signal that ended it; with --fail-on by 1 when the program itself\n"
        "succeeded and there is such a finding, however long that takes to find out, and by 2 when the recording\n"
        "cannot be read. Without it nothing holds up the program's end for more than a second. A deadlock is\n"
        "told on stderr while it hangs; --on-deadlock terminate then sends SIGTERM, and SIGKILL two seconds later,\n"
        "to all recorded processes, and planloop ends as the program then does, but never by 0.\n",
        "planloop dev run --session build -- make -j8", "record what make and its children lock, as session `build'",
        run_dev_run},
    Command{"dev locks", "show who waited for whom, how long, and any deadlock", kLocksOptions, false,
            "What narrows the answer changes no verdict: all that was recorded is taken into account. Several such\n"
            "options must all be met. Statistics of a lock are of all its calls. --fail-on looks at what is shown.\n",
            "planloop dev locks --session build", "the timeline of session `build', then what it means", run_dev_locks},
    Command{"dev export", "write a session in the format of another tool", kExportOptions, false,
            "Memory does not grow with the session. A file appears when it is whole.\n",
            "planloop dev export --session build --format perfetto -o build.pftrace",
            "a file for https://ui.perfetto.dev", run_dev_export},
    Command{"dev report", "write a session as one HTML page: verdict, timeline, who waits for whom", kReportOptions,
            false, "The page needs no network and opens in any browser.\n",
            "planloop dev report --session build -o build.html", "then open build.html", run_dev_report},
    Command{"dev sessions",
            "list the recorded sessions, newest first",
            {},
            false,
            "",
            "planloop dev sessions",
            "every session under $PLANLOOP_HOME, by default ~/.planloop",
            run_dev_sessions},
    Command{"dev prune", "delete old recordings, compress those that stay", kPruneOptions, false,
            "Only logs are deleted, never a plan, and nothing that a program may still record into.\n",
            "planloop dev prune --older-than 30d --max-size 2G --compress",
            "keep a month, two gigabytes at most, and that compressed", run_dev_prune},
    Command{"dev doctor",
            "say whether a program can be traced, and whether a lock file lies where other rules hold",
            kDoctorOptions,
            true,
            "It starts nothing. Exit status 0: all is well or only the rules of locks differ; 1: something cannot be "
            "traced.\n",
            "planloop dev doctor --lock /srv/share/queue.lock -- ./worker",
            "look before a run",
            run_dev_doctor,
            {},
            true},
    Command{"dev preload-path",
            "print where the library is that records, to use without `dev run'",
            {},
            false,
            "",
            "LD_PRELOAD=$(planloop dev preload-path) PLANLOOP_SESSION=build make",
            "record without a supervisor: the library makes the session",
            run_dev_preload_path},
    Command{"update", "change a session's plan as a payload says, under its lock", kUpdateOptions, false,
            "Exit status 1, one line and nothing written when the payload does not fit.\n",
            "planloop update --file payload.json", "apply payload.json to the session that it names", run_update},
    Command{"status", "show what a plan is at, and who is in its lock and before it", kStatusOptions, false, "",
            "planloop status", "of the current session", run_status},
    Command{"sessions create", "make a session with an empty plan, the current one from then on", kCreateOptions, false,
            "", "planloop sessions create --name parser", "prints the new id", run_sessions_create},
    Command{"sessions list",
            "list the sessions that have a plan",
            {},
            false,
            "",
            "planloop sessions list",
            "the current one is marked with *",
            run_sessions_list},
    Command{"sessions info", "show what a session is about and where it is", kPlanOptions, false, "",
            "planloop sessions info --session parser", "of the one session whose id begins with parser",
            run_sessions_info},
    Command{"sessions current",
            "print the id of the current session",
            {},
            false,
            "",
            "planloop sessions current",
            "what commands without --session are about",
            run_sessions_current},
    Command{"sessions switch", "choose the current session", kPlanOptions, false, "",
            "planloop sessions switch --session parser", "from now on commands are about that one",
            run_sessions_switch},
};

std::string option_text(const Option &option) {
    return option.value.empty() ? std::string(option.name) : fmt::format("{} {}", option.name, option.value);
}

}  // namespace

std::span<const Command> commands() {
    static const std::vector<Command> all = [] {
        std::vector<Command> joined;
        bool in_dev = true;
        for (const Command &command : kCommands) {
            // Those of recorded operations come behind the other `dev` commands.
            if (in_dev && command.name.substr(0, 4) != "dev ") {
                in_dev = false;
                joined.insert(joined.end(), record_commands().begin(), record_commands().end());
            }
            joined.push_back(command);
        }
        return joined;
    }();
    return all;
}

std::string usage_of(const Command &command) {
    std::string out = fmt::format("planloop {}", command.name);
    if (!command.operands.empty()) out += fmt::format(" {}", command.operands);
    constexpr std::size_t kMostNamed = 5;  // more are no help in one line; --help has them below it
    if (command.options.size() > kMostNamed) out += " [OPTION...]";
    for (const Option &option : command.options)
        if (command.options.size() <= kMostNamed) out += fmt::format(" [{}]", option_text(option));
    if (command.takes_program) out += command.program_optional ? " [-- CMD [ARGUMENT...]]" : " -- CMD [ARGUMENT...]";
    return out;
}

std::string help_of(const Command &command) {
    std::string out = fmt::format("usage: {}\n\nplanloop {}: {}\n", usage_of(command), command.name, command.summary);
    if (!command.details.empty()) out += fmt::format("\n{}", command.details);
    out += "\noptions:\n";
    for (const Option &option : command.options) out += fmt::format("  {:<19} {}\n", option_text(option), option.help);
    out += fmt::format("  {:<19} {}\n", "--help", "this text");
    out += fmt::format("\nexample: {}\n  {}\n", command.example_says, command.example);
    return out;
}

std::string help_of_all() {
    std::string out =
        "usage: planloop COMMAND [OPTION...]\n\n"
        "Shows which process waits for which at file locks, in any Linux program, and names the circular waits.\n\n"
        "commands:\n";
    for (const Command &command : commands()) {
        out += fmt::format("  {:<22}  {}\n  {:<22}  example: {}\n", command.name, command.summary, "", command.example);
    }
    out +=
        "\n"
        "  planloop COMMAND --help   options of a command\n"
        "  planloop --version        the version\n\n"
        "Exit status: 0 done, 1 a finding that --fail-on names, 2 bad usage or input; `dev run' ends as the program "
        "did.\n";
    return out;
}

}  // namespace planloop::cli
