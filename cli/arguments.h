// Reads the words behind a subcommand by that command's table of options. The only user of CLI11, whose header takes
// seconds to compile.
//
// Errors: one line that says what is wrong with which word. Threads: pure function.
#ifndef PLANLOOP_CLI_ARGUMENTS_H
#define PLANLOOP_CLI_ARGUMENTS_H

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "lockcore/result.h"

namespace planloop::cli {

// Options may be written `--session S` or `--session=S`. The program begins behind `--`, or with the first word that is
// no option; nothing of it is looked at.
Result<Arguments> parse_arguments(const Command &command, const std::vector<std::string> &words);

// Of `names`, the one that is fewest typing errors away from `typed`; empty when none is near.
std::string_view nearest_name(std::string_view typed, const std::vector<std::string_view> &names);

// The value of an option that is a number of seconds, from 0 to `most`; nothing without the option.
Result<std::optional<double>> seconds_of(const Arguments &arguments, std::string_view option, double most);

}  // namespace planloop::cli

#endif
