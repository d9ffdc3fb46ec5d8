#include "cli/fail_on.h"

#include <algorithm>
#include <optional>

#include "cli/locks_options.h"

namespace planloop::cli {

Result<std::vector<std::string>> kinds_to_fail_on(const Arguments &arguments) {
    const std::optional<std::string> given = arguments.value("--fail-on");
    if (!given) return std::vector<std::string>();
    return finding_kinds_in("--fail-on", *given);
}

bool has_finding(const analysis::Report &report, const std::vector<std::string> &kinds) {
    return std::any_of(report.findings.begin(), report.findings.end(), [&](const analysis::Finding &finding) {
        return std::find(kinds.begin(), kinds.end(), finding.kind) != kinds.end();
    });
}

}  // namespace planloop::cli
