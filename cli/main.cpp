// The `planloop` command: finds the subcommand in the table and turns its result into an exit status.

#include <fmt/format.h>
#include <stdio.h>

#include <algorithm>
#include <exception>
#include <string>
#include <string_view>
#include <vector>

#include "cli/arguments.h"
#include "cli/command.h"
#include "cli/output.h"

namespace planloop::cli {
namespace {

bool asks_for_help(std::string_view word) {
    return word == "--help" || word == "-h";
}

// How many of the words spell the command's name; 0: another command.
std::size_t words_of_name(std::string_view name, const std::vector<std::string> &words) {
    std::size_t used = 0;
    while (!name.empty()) {
        const std::string_view part = name.substr(0, name.find(' '));
        if (used == words.size() || words[used] != part) return 0;
        name.remove_prefix(std::min(name.size(), part.size() + 1));
        ++used;
    }
    return used;
}

// Up to so many of the words in front of the first option.
std::string first_words(const std::vector<std::string> &words, std::size_t most) {
    std::string typed;
    for (std::size_t i = 0; i < std::min(words.size(), most); ++i) {
        if (!words[i].empty() && words[i][0] == '-') break;
        typed += typed.empty() ? words[i] : ' ' + words[i];
    }
    return typed;
}

// Whether commands have names that begin so: "dev errors".
bool is_group(const std::string &typed) {
    const auto names = commands();
    return std::any_of(names.begin(), names.end(),
                       [&](const Command &command) { return command.name.substr(0, typed.size() + 1) == typed + ' '; });
}

Error unknown_command(const std::vector<std::string> &words) {
    constexpr std::size_t kLongestName = 3;
    const std::string typed = first_words(words, 2);
    if (typed.empty()) return Error{fmt::format("unknown option {}; see planloop --help", words[0])};
    std::vector<std::string_view> names;
    for (const Command &command : commands()) names.push_back(command.name);
    if (first_words(words, kLongestName) == typed && is_group(typed)) {
        return Error{fmt::format("{} what? see planloop --help", typed)};
    }
    std::string_view near;
    for (const std::string &as_typed : {first_words(words, kLongestName), typed, "dev " + words[0]}) {
        if (near.empty()) near = nearest_name(as_typed, names);
    }
    if (near.empty()) return Error{fmt::format("unknown command {}; see planloop --help", typed)};
    return Error{fmt::format("unknown command {}; did you mean planloop {}?", typed, near)};
}

Result<int> run(const std::vector<std::string> &words) {
    if (words.empty()) return Error{"no command; see planloop --help"};
    if (words[0] == "--version") {
        write_out("planloop " PLANLOOP_VERSION "\n");
        return kExitDone;
    }
    if (asks_for_help(words[0]) || words[0] == "help") {
        write_out(help_of_all());
        return kExitDone;
    }
    for (const Command &command : commands()) {
        const std::size_t used = words_of_name(command.name, words);
        if (used == 0) continue;
        const std::vector<std::string> rest(words.begin() + static_cast<std::ptrdiff_t>(used), words.end());
        const Result<Arguments> arguments = parse_arguments(command, rest);
        if (!arguments) return arguments.error();
        if (arguments->asks_for_help) {
            write_out(help_of(command));
            return kExitDone;
        }
        return command.run(*arguments);
    }
    if (asks_for_help(words.back()) && is_group(first_words(words, words.size()))) {
        write_out(help_of_all());
        return kExitDone;
    }
    return unknown_command(words);
}

}  // namespace
}  // namespace planloop::cli

int main(int argc, char **argv) {
    using namespace planloop::cli;
    try {
        const planloop::Result<int> result = run({argv + std::min(argc, 1), argv + argc});
        if (!result) {
            say(result.error().message);
            return kExitBadInput;
        }
        const planloop::Result<void> written = finish_out();
        if (!written) {
            say(written.error().message);
            return kExitBadInput;
        }
        return *result;
    } catch (const std::exception &failure) {  // no memory, most likely: whatever else can go wrong is a Result
        static_cast<void>(::fprintf(stderr, "planloop: %s\n", failure.what()));
        return kExitBadInput;
    }
}
