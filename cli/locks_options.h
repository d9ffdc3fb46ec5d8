// The options of `dev locks` that say how the answer is written (--format, --json) and what of it (--lock
// --pid --process --trace --since --until --family --finding).
//
// Errors: one line that names the option. Threads: safe; a relative path counts from the working folder.
#ifndef PLANLOOP_CLI_LOCKS_OPTIONS_H
#define PLANLOOP_CLI_LOCKS_OPTIONS_H

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/filter.h"
#include "cli/command.h"
#include "lockcore/result.h"

namespace planloop::cli {

enum class LocksFormat : std::uint8_t { table, json, jsonl, dot };

// An Error when options that were given mean nothing together.
Result<LocksFormat> locks_format_of(const Arguments &arguments);

// --limit: how many entries of the timeline are told; without it, the greatest number.
Result<std::uint64_t> limit_of(const Arguments &arguments);

// Empty without any of the options.
Result<analysis::Filter> filter_of(const Arguments &arguments);

// The kinds of finding in a comma-separated value of `option`; an Error names one that does not exist.
Result<std::vector<std::string>> finding_kinds_in(std::string_view option, const std::string &value);

}  // namespace planloop::cli

#endif
