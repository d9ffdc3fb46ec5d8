// A subcommand of `planloop`: one file that implements it, and one row in the table of commands.cpp, which drives
// dispatch, help and typo hints. (A table and not objects that register themselves: a linker may drop those.)
//
// A command returns its exit status, or an Error, which main() prints as one line and turns into status 2. Data goes to
// stdout, messages to stderr.
#ifndef PLANLOOP_CLI_COMMAND_H
#define PLANLOOP_CLI_COMMAND_H

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/result.h"

namespace planloop::cli {

inline constexpr int kExitDone = 0;
inline constexpr int kExitBadInput = 2;

struct Option {
    std::string_view name;     // with its dashes
    std::string_view value;    // what stands for the value in help; empty: a flag
    std::string_view help;     // one line
    std::string_view choices;  // allowed values, separated by '|'; empty: any
};

// What the user typed, checked against the command's options.
struct Arguments {
    std::map<std::string, std::string, std::less<>> values;  // a flag that was given has the value ""
    std::vector<std::string> program;                        // the program to run and its arguments
    std::vector<std::string> operands;                       // words that are no options, as many as the command wants
    bool asks_for_help = false;                              // then the rest is not read

    bool has(std::string_view option) const { return values.find(option) != values.end(); }
    std::optional<std::string> value(std::string_view option) const {
        const auto found = values.find(option);
        return found == values.end() ? std::nullopt : std::optional(found->second);
    }
};

struct Command {
    std::string_view name;  // words separated by one space
    std::string_view summary;
    std::span<const Option> options;
    bool takes_program;        // `-- CMD [ARGUMENT…]`
    std::string_view details;  // further help, may be empty; ends with a newline if not
    std::string_view example;  // a command line
    std::string_view example_says;
    Result<int> (*run)(const Arguments &);
    std::string_view operands{};    // what it wants besides options, for help: "ID", "ID ID"; one word each
    bool program_optional = false;  // `-- CMD` may be missing
};

// All of them, in the order of the help. Rows stand in commands.cpp, those of recorded operations in
// record_commands.cpp. A name that begins another command's stands behind it.
std::span<const Command> commands();
std::span<const Command> record_commands();

// How it is called, for help and for messages: "planloop dev run [--session S] -- CMD [ARGUMENT…]".
std::string usage_of(const Command &command);
std::string help_of(const Command &command);
std::string help_of_all();

Result<int> run_dev_run(const Arguments &arguments);
Result<int> run_dev_locks(const Arguments &arguments);
Result<int> run_dev_export(const Arguments &arguments);
Result<int> run_dev_report(const Arguments &arguments);
Result<int> run_dev_sessions(const Arguments &arguments);
Result<int> run_dev_prune(const Arguments &arguments);
Result<int> run_dev_preload_path(const Arguments &arguments);
Result<int> run_dev_doctor(const Arguments &arguments);
Result<int> run_update(const Arguments &arguments);
Result<int> run_status(const Arguments &arguments);
Result<int> run_sessions_create(const Arguments &arguments);
Result<int> run_sessions_list(const Arguments &arguments);
Result<int> run_sessions_info(const Arguments &arguments);
Result<int> run_sessions_current(const Arguments &arguments);
Result<int> run_sessions_switch(const Arguments &arguments);

}  // namespace planloop::cli

#endif
