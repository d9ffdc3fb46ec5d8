#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cli/command.h"

namespace planloop::cli {
namespace {

constexpr Option kSessionToRecord{"--session", "S",
                                  "session to record into, made if missing (named by program and time)", ""};
constexpr Option kSessionToShow{"--session", "S", "its id, a prefix that only it has, or latest (the default)", ""};
constexpr Option kColour{"--color", "WHEN", "auto (the default: only on a terminal), always or never",
                         "auto|always|never"};
constexpr Option kJson{"--json", "", "one JSON object, schema planloop.locks/1", ""};
constexpr Option kSummary{"--summary", "", "leave the timeline out", ""};

constexpr std::array kRunOptions{kSessionToRecord};
constexpr std::array kLocksOptions{kSessionToShow, kJson, kSummary, kColour};

constexpr std::array kCommands{
    Command{"dev run", "run a program and record every file lock that it and its children take", kRunOptions, true,
            "The program is not changed and needs no rights: a library is preloaded into it. planloop ends with the\n"
            "program's own exit status, or by the signal that ended it.\n",
            "planloop dev run --session build -- make -j8",
            "record what make and its children lock, as session `build'", run_dev_run},
    Command{"dev locks", "show who waited for whom, how long, and any deadlock", kLocksOptions, false, "",
            "planloop dev locks --session build", "the timeline of session `build', then what it means", run_dev_locks},
    Command{"dev sessions",
            "list the recorded sessions, newest first",
            {},
            false,
            "",
            "planloop dev sessions",
            "every session under $PLANLOOP_HOME, by default ~/.planloop",
            run_dev_sessions},
    Command{"dev preload-path",
            "print where the library is that records, to use without `dev run'",
            {},
            false,
            "",
            "LD_PRELOAD=$(planloop dev preload-path) PLANLOOP_SESSION=build make",
            "record without a supervisor: the library makes the session",
            run_dev_preload_path},
};

std::string option_text(const Option &option) {
    return option.value.empty() ? std::string(option.name) : fmt::format("{} {}", option.name, option.value);
}

}  // namespace

std::span<const Command> commands() {
    return kCommands;
}

std::string usage_of(const Command &command) {
    std::string out = fmt::format("planloop {}", command.name);
    for (const Option &option : command.options) out += fmt::format(" [{}]", option_text(option));
    if (command.takes_program) out += " -- CMD [ARGUMENT...]";
    return out;
}

std::string help_of(const Command &command) {
    std::string out = fmt::format("usage: {}\n\nplanloop {}: {}\n", usage_of(command), command.name, command.summary);
    if (!command.details.empty()) out += fmt::format("\n{}", command.details);
    out += "\noptions:\n";
    for (const Option &option : command.options) out += fmt::format("  {:<16} {}\n", option_text(option), option.help);
    out += fmt::format("  {:<16} {}\n", "--help", "this text");
    out += fmt::format("\nexample: {}\n  {}\n", command.example_says, command.example);
    return out;
}

std::string help_of_all() {
    std::string out =
        "usage: planloop COMMAND [OPTION...]\n\n"
        "Shows which process waits for which at file locks, in any Linux program, and names the circular waits.\n\n"
        "commands:\n";
    for (const Command &command : kCommands) {
        out += fmt::format("  {:<18} {}\n  {:<18} example: {}\n", command.name, command.summary, "", command.example);
    }
    out +=
        "\n"
        "  planloop COMMAND --help   options of a command\n"
        "  planloop --version        the version\n\n"
        "Exit status: 0 done, 2 bad usage or input; `dev run' ends as the program did.\n";
    return out;
}

}  // namespace planloop::cli
