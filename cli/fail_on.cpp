#include "cli/fail_on.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <string_view>

#include "analysis/passes.h"
#include "cli/arguments.h"

namespace planloop::cli {

Result<std::vector<std::string>> kinds_to_fail_on(const Arguments &arguments) {
    std::vector<std::string> kinds;
    const std::optional<std::string> given = arguments.value("--fail-on");
    if (!given) return kinds;
    const std::vector<std::string_view> known = analysis::finding_kinds();
    for (std::size_t begin = 0; begin <= given->size();) {
        const std::size_t end = std::min(given->find(',', begin), given->size());
        std::string kind = given->substr(begin, end - begin);
        begin = end + 1;
        if (std::find(known.begin(), known.end(), kind) == known.end()) {
            const std::string_view near = nearest_name(kind, known);
            return Error{fmt::format("--fail-on: no finding is called '{}'{}", kind,
                                     near.empty() ? "" : fmt::format("; did you mean {}?", near))};
        }
        kinds.push_back(std::move(kind));
    }
    return kinds;
}

bool has_finding(const analysis::Report &report, const std::vector<std::string> &kinds) {
    return std::any_of(report.findings.begin(), report.findings.end(), [&](const analysis::Finding &finding) {
        return std::find(kinds.begin(), kinds.end(), finding.kind) != kinds.end();
    });
}

}  // namespace planloop::cli
