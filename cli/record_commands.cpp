// The rows of the commands about recorded operations: errors, traces, what they cost. See command.h.

#include <array>

#include "cli/command.h"

namespace planloop::cli {

Result<int> run_dev_errors_list(const Arguments &arguments);
Result<int> run_dev_errors_show(const Arguments &arguments);
Result<int> run_dev_perf(const Arguments &arguments);
Result<int> run_dev_perf_show(const Arguments &arguments);
Result<int> run_dev_trace(const Arguments &arguments);
Result<int> run_dev_compare(const Arguments &arguments);

namespace {

constexpr Option kSessionToList{"--session", "S", "its id or a prefix; default: the current one, else the latest", ""};
constexpr Option kSessionToSearch{"--session", "S", "its id or a prefix; default: look in all of them", ""};
constexpr Option kJson{"--json", "", "for programs", ""};

constexpr std::array kListOptions{kSessionToList, kJson};
constexpr std::array kOneOptions{kSessionToSearch, kJson};
constexpr std::string_view kIds = "An ID may be shortened to a prefix that only one trace has.\n";

constexpr std::array kRows{
    Command{"dev errors list", "list what went wrong in a session, oldest first", kListOptions, false, "",
            "planloop dev errors list --session test", "the errors of session `test'", run_dev_errors_list},
    Command{"dev errors show", "show one error: values, stack, locks, state", kOneOptions, false, kIds,
            "planloop dev errors show tr_20251118080000_abc123", "the error of that trace", run_dev_errors_show, "ID"},
    Command{"dev perf show", "show what an operation spent its time on", kOneOptions, false, kIds,
            "planloop dev perf show tr_20251118080000_abc123", "its spans, with their shares", run_dev_perf_show, "ID"},
    Command{"dev perf", "show how long a session's operations took", kListOptions, false, "",
            "planloop dev perf --session test", "by operation, then the slowest", run_dev_perf},
    Command{"dev trace", "show all that one trace id left, in time order, on one page", kOneOptions, false, kIds,
            "planloop dev trace tr_20251118080000_abc123", "error, spans, locks, transcript, diff", run_dev_trace,
            "ID"},
    Command{"dev compare", "show two operations side by side: spans, locks, errors", kOneOptions, false, kIds,
            "planloop dev compare tr_20251118080000_abc123 tr_20251118090000_def456", "what became slower",
            run_dev_compare, "ID ID"},
};

}  // namespace

std::span<const Command> record_commands() {
    return kRows;
}

}  // namespace planloop::cli
