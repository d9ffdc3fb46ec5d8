// --fail-on KIND[,KIND...]: findings that make a command fail, so that CI can stop on them.
#ifndef PLANLOOP_CLI_FAIL_ON_H
#define PLANLOOP_CLI_FAIL_ON_H

#include <string>
#include <vector>

#include "analysis/report.h"
#include "cli/command.h"
#include "lockcore/result.h"

namespace planloop::cli {

inline constexpr int kExitFinding = 1;

// What the user named, empty without the option; an Error names a kind that does not exist.
Result<std::vector<std::string>> kinds_to_fail_on(const Arguments &arguments);
bool has_finding(const analysis::Report &report, const std::vector<std::string> &kinds);

}  // namespace planloop::cli

#endif
