#include "cli/locks_options.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <optional>
#include <string_view>
#include <system_error>
#include <utility>

#include "analysis/passes.h"
#include "analysis/render/names.h"
#include "cli/arguments.h"
#include "lockcore/clock.h"
#include "lockcore/session.h"

namespace planloop::cli {
namespace {

constexpr std::int64_t kSecondNs = 1'000'000'000;

std::vector<std::string> words_of(const std::string &value) {
    std::vector<std::string> words;
    for (std::size_t begin = 0; begin <= value.size();) {
        const std::size_t end = std::min(value.find(',', begin), value.size());
        words.push_back(value.substr(begin, end - begin));
        begin = end + 1;
    }
    return words;
}

Result<std::vector<std::string>> known_words(std::string_view option, std::string_view what, const std::string &value,
                                             const std::vector<std::string_view> &known) {
    std::vector<std::string> words = words_of(value);
    for (const std::string &word : words) {
        if (std::find(known.begin(), known.end(), word) != known.end()) continue;
        const std::string_view near = nearest_name(word, known);
        return Error{fmt::format("{}: no {} is called '{}'{}", option, what, printable(word),
                                 near.empty() ? "" : fmt::format("; did you mean {}?", near))};
    }
    return words;
}

Result<std::vector<std::int32_t>> pids_in(const std::string &value) {
    std::vector<std::int32_t> pids;
    for (const std::string &word : words_of(value)) {
        std::int32_t pid = 0;
        const char *const end = word.data() + word.size();
        const auto [stop, error] = std::from_chars(word.data(), end, pid);
        if (error != std::errc() || stop != end || pid <= 0)
            return Error{fmt::format("--pid wants process ids, as 4711 or 4711,4712, not '{}'", printable(value))};
        pids.push_back(pid);
    }
    return pids;
}

// A recorded path is the kernel's: absolute, without links. The file may be gone.
std::vector<std::string> lock_names(const std::string &value) {
    std::vector<std::string> names{value};
    std::error_code failed;
    const auto absolute = std::filesystem::absolute(value, failed);
    if (!failed) names.push_back(absolute.lexically_normal());
    const auto real = std::filesystem::weakly_canonical(value, failed);
    if (!failed) names.push_back(real);
    return names;
}

// What is cut to a minute, a second or a part of it stands for all of that.
std::int64_t precision_of(std::string_view text, bool seconds) {
    if (!seconds) return 60 * kSecondNs;
    std::int64_t precision = kSecondNs;
    const std::size_t point = text.find('.');
    for (std::size_t i = point; i != std::string_view::npos && i + 1 < text.size() && precision > 1; ++i) {
        if (text[i + 1] < '0' || text[i + 1] > '9') break;
        precision /= 10;
    }
    return precision;
}

Result<analysis::Moment> moment_in(std::string_view option, const std::string &text) {
    const bool of_day = text.find('-') == std::string::npos;
    const bool seconds = !of_day || std::count(text.begin(), text.end(), ':') > 1;
    const std::string time = of_day ? fmt::format("1970-01-01T{}{}Z", text, seconds ? "" : ":00") : text;
    const std::optional<std::int64_t> ns = parse_utc(time);
    if (!ns)
        return Error{fmt::format("{} wants a time in UTC, as 08:00:02.350 or 2026-11-22T08:00:02, not '{}'", option,
                                 printable(text))};
    return analysis::Moment{*ns, precision_of(text, seconds), of_day};
}

// Options that mean nothing together.
Result<void> check_together(const Arguments &arguments, LocksFormat format) {
    if (arguments.has("--system")) {
        for (const char *other : {"--session", "--follow", "--waiting", "--trace", "--since", "--until"})
            if (arguments.has(other))
                return Error{fmt::format("--system is about this moment and no session; it goes without {}", other)};
        if (format == LocksFormat::jsonl) return Error{"--system has no timeline; it goes without --format jsonl"};
    }
    if (arguments.has("--follow") && (arguments.has("--waiting") || arguments.has("--summary")))
        return Error{"--follow shows the timeline; it goes with neither --waiting nor --summary"};
    if (arguments.has("--limit")) {
        for (const char *other : {"--system", "--follow", "--waiting", "--summary"})
            if (arguments.has(other))
                return Error{fmt::format("--limit is about the timeline; it goes without {}", other)};
        if (format == LocksFormat::dot) return Error{"--limit is about the timeline; it goes without --format dot"};
    }
    if (arguments.has("--follow") && format == LocksFormat::dot)
        return Error{"--follow shows the timeline; it goes without --format dot"};
    if (arguments.has("--waiting") && format != LocksFormat::table && format != LocksFormat::json)
        return Error{"--waiting shows a table or JSON"};
    return {};
}

}  // namespace

Result<LocksFormat> locks_format_of(const Arguments &arguments) {
    const std::string name = arguments.value("--format").value_or(arguments.has("--json") ? "json" : "table");
    if (arguments.has("--json") && name != "json") return Error{"--json is --format json; say one of them"};
    const LocksFormat format = name == "json"    ? LocksFormat::json
                               : name == "jsonl" ? LocksFormat::jsonl
                               : name == "dot"   ? LocksFormat::dot
                                                 : LocksFormat::table;
    if (const Result<void> together = check_together(arguments, format); !together) return together.error();
    return format;
}

Result<std::vector<std::string>> finding_kinds_in(std::string_view option, const std::string &value) {
    return known_words(option, "finding", value, analysis::finding_kinds());
}

Result<std::uint64_t> limit_of(const Arguments &arguments) {
    const std::optional<std::string> given = arguments.value("--limit");
    if (!given) return UINT64_MAX;
    std::uint64_t limit = 0;
    const char *const end = given->data() + given->size();
    const auto [stop, error] = std::from_chars(given->data(), end, limit);
    if (error != std::errc() || stop != end)
        return Error{fmt::format("--limit wants a number, as 1000, not '{}'", printable(*given))};
    return limit;
}

Result<analysis::Filter> filter_of(const Arguments &arguments) {
    analysis::Filter filter;
    const auto given = [&](std::string_view option) {
        std::optional<std::string> value = arguments.value(option);
        if (value) filter.words += fmt::format("{}{} {}", filter.words.empty() ? "" : " ", option, *value);
        return value;
    };
    if (const auto path = given("--lock")) filter.locks = lock_names(*path);
    if (const auto value = given("--pid")) {
        Result<std::vector<std::int32_t>> pids = pids_in(*value);
        if (!pids) return pids.error();
        filter.pids = std::move(*pids);
    }
    if (const auto names = given("--process")) filter.processes = words_of(*names);
    if (const auto ids = given("--trace")) filter.traces = words_of(*ids);
    for (auto [option, moment] : {std::pair("--since", &filter.since), std::pair("--until", &filter.until)}) {
        const auto text = given(option);
        if (!text) continue;
        const Result<analysis::Moment> read = moment_in(option, *text);
        if (!read) return read.error();
        *moment = *read;
    }
    if (const auto value = given("--family")) {
        std::vector<std::string_view> known;
        for (const wire::FamilyTraits &family : wire::kFamilies) known.emplace_back(family.name);
        Result<std::vector<std::string>> families = known_words("--family", "family of locks", *value, known);
        if (!families) return families.error();
        filter.families = std::move(*families);
    }
    if (const auto value = given("--finding")) {
        Result<std::vector<std::string>> kinds = finding_kinds_in("--finding", *value);
        if (!kinds) return kinds.error();
        filter.findings = std::move(*kinds);
    }
    return filter;
}

}  // namespace planloop::cli
