#include "cli/arguments.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cstddef>
#include <deque>
#include <system_error>
#include <utility>

namespace planloop::cli {
namespace {

using GivenOptions = std::vector<std::pair<const Option *, CLI::Option *>>;

// Levenshtein's distance.
std::size_t typing_errors(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({row[j] + 1, row[j - 1] + 1, replaced});
        }
    }
    return row[b.size()];
}

Error usage_error(const Command &command, std::string_view what) {
    return Error{fmt::format("{} (usage: {})", what, usage_of(command))};
}

Error unknown_option(const Command &command, std::string_view word) {
    std::vector<std::string_view> names{"--help"};
    for (const Option &option : command.options) names.push_back(option.name);
    const std::string_view near = nearest_name(word.substr(0, word.find('=')), names);
    if (!near.empty()) return Error{fmt::format("unknown option {}; did you mean {}?", word, near)};
    return usage_error(command, fmt::format("unknown option {}", word));
}

// CLI11 has one exception for a value that is missing and for one too many.
Error value_count_error(const Command &command, const GivenOptions &given, std::string_view what) {
    for (const auto &[option, parsed] : given) {
        if (option->value.empty() || parsed->count() < 2) continue;
        return usage_error(command, fmt::format("{} is given {} times", option->name, parsed->count()));
    }
    return usage_error(command, fmt::format("{} needs a value", what.substr(0, what.find(':'))));
}

std::size_t operand_count(const Command &command) {
    if (command.operands.empty()) return 0;
    return static_cast<std::size_t>(std::count(command.operands.begin(), command.operands.end(), ' ')) + 1;
}

// Where the program's words begin when `--` does not say so: behind the options and their values.
std::size_t first_program_word(const Command &command, const std::vector<std::string> &words) {
    for (std::size_t i = 0; i < words.size(); ++i) {
        if (words[i].empty() || words[i][0] != '-') return i;
        if (words[i] == "--") return i;
        const auto option = std::find_if(command.options.begin(), command.options.end(),
                                         [&](const Option &candidate) { return candidate.name == words[i]; });
        if (option != command.options.end() && !option->value.empty()) ++i;
    }
    return words.size();
}

}  // namespace

std::string_view nearest_name(std::string_view typed, const std::vector<std::string_view> &names) {
    std::string_view best;
    std::size_t best_errors = std::max<std::size_t>(1, typed.size() / 3) + 1;
    for (const std::string_view name : names) {
        const std::size_t errors = typing_errors(typed, name);
        if (errors < best_errors) {
            best = name;
            best_errors = errors;
        }
    }
    return best;
}

Result<Arguments> parse_arguments(const Command &command, const std::vector<std::string> &words) {
    Arguments arguments;
    std::vector<std::string> own = words;
    if (command.takes_program) {
        const std::size_t begin = first_program_word(command, words);
        own.resize(std::min(begin, words.size()));
        const std::size_t skipped = begin < words.size() && words[begin] == "--" ? 1 : 0;
        if (begin < words.size()) {
            arguments.program.assign(words.begin() + static_cast<std::ptrdiff_t>(begin + skipped), words.end());
        }
    }

    CLI::App app;
    app.set_help_flag();
    app.allow_extras();
    std::deque<std::pair<const Option *, std::string>> values;  // CLI11 keeps references into it
    GivenOptions given;
    const CLI::Option *help = app.add_flag("-h,--help");
    for (const Option &option : command.options) {
        const std::string name(option.name);
        if (option.value.empty()) {
            given.emplace_back(&option, app.add_flag(name));
        } else {
            values.emplace_back(&option, std::string());
            given.emplace_back(&option, app.add_option(name, values.back().second));
        }
    }
    try {
        std::reverse(own.begin(), own.end());  // as CLI11 wants it
        app.parse(std::move(own));
    } catch (const CLI::ArgumentMismatch &error) {
        return value_count_error(command, given, error.what());
    } catch (const CLI::ParseError &error) {
        return usage_error(command, error.what());
    }
    arguments.asks_for_help = help->count() != 0;
    if (arguments.asks_for_help) return arguments;
    const std::size_t wanted = operand_count(command);
    for (const std::string &word : app.remaining()) {
        if (word.size() > 1 && word[0] == '-') return unknown_option(command, word);
        if (arguments.operands.size() == wanted)
            return usage_error(command, fmt::format("unexpected argument {}", word));
        arguments.operands.push_back(word);
    }
    if (arguments.operands.size() < wanted) return usage_error(command, fmt::format("needs {}", command.operands));
    for (const auto &[option, parsed] : given) {
        if (parsed->count() != 0) arguments.values.emplace(option->name, "");
    }
    for (const auto &[option, value] : values) {
        const auto found = arguments.values.find(option->name);
        if (found == arguments.values.end()) continue;
        found->second = value;
        const std::string allowed = fmt::format("|{}|", option->choices);
        if (!option->choices.empty() && allowed.find(fmt::format("|{}|", value)) == std::string::npos) {
            return Error{fmt::format("{} is {}, not {}", option->name, option->choices, value)};
        }
    }
    if (command.takes_program && !command.program_optional && arguments.program.empty())
        return usage_error(command, "no program to run");
    return arguments;
}

Result<std::optional<double>> seconds_of(const Arguments &arguments, std::string_view option, double most) {
    const std::optional<std::string> given = arguments.value(option);
    if (!given) return std::optional<double>();
    double seconds = 0;
    const char *const end = given->data() + given->size();
    const auto [stop, error] = std::from_chars(given->data(), end, seconds);
    if (error != std::errc() || stop != end || !(seconds >= 0) || seconds > most)
        return Error{fmt::format("{} wants seconds, as 10 or 0.5, not '{}'", option, *given)};
    return std::optional(seconds);
}

}  // namespace planloop::cli
