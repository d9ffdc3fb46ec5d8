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
Result<int> run_dev_on(const Arguments &arguments);
Result<int> run_dev_off(const Arguments &arguments);
Result<int> run_dev_status(const Arguments &arguments);
Result<int> run_dev_dogfood(const Arguments &arguments);
Result<int> run_dev_restore(const Arguments &arguments);
Result<int> run_dev_export_logs(const Arguments &arguments);
Result<int> run_dev_export_llm(const Arguments &arguments);
Result<int> run_dev_export_traces(const Arguments &arguments);
Result<int> run_dev_export_diffs(const Arguments &arguments);
Result<int> run_dev_export_performance(const Arguments &arguments);
Result<int> run_dev_scrub(const Arguments &arguments);

namespace {

constexpr Option kSessionToList{"--session", "S", "its id or a prefix; default: the current one, else the latest", ""};
constexpr Option kSessionToSearch{"--session", "S", "its id or a prefix; default: look in all of them", ""};
constexpr Option kJson{"--json", "", "for programs", ""};

constexpr Option kTail{"--tail", "N", "the last N only", ""};

constexpr std::array kJsonOptions{kJson};
constexpr std::array kExportOptions{kSessionToList, kTail, kJson};
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
    Command{"dev export-logs", "print planloop.jsonl, finished from the spools, as one JSON array", kExportOptions,
            false, "", "planloop dev export-logs --tail 100", "the last hundred events", run_dev_export_logs},
    Command{"dev export-llm", "print the transcripts of language models as one JSON array", kExportOptions, false, "",
            "planloop dev export-llm", "of the current session", run_dev_export_llm},
    Command{"dev export-traces", "print the traces as one JSON array", kExportOptions, false, "",
            "planloop dev export-traces", "of the current session", run_dev_export_traces},
    Command{"dev export-diffs", "print what operations changed in the state as one JSON array", kExportOptions, false,
            "", "planloop dev export-diffs", "of the current session", run_dev_export_diffs},
    Command{"dev export-performance", "print the metrics as one JSON array", kExportOptions, false, "",
            "planloop dev export-performance", "of the current session", run_dev_export_performance},
    Command{"dev scrub", "take secrets out of what a session recorded, in place", kListOptions, false,
            "Rewrites what lies under logs/, but for the spools; names, types and lines stay. Refuses while a program\n"
            "writes to the session.\n",
            "planloop dev scrub --session test", "of session `test'", run_dev_scrub},
    Command{"dev on",
            "record all: traces, diffs, metrics, transcripts",
            {},
            false,
            "",
            "planloop dev on",
            "marks $PLANLOOP_HOME as in dev mode",
            run_dev_on},
    Command{"dev off",
            "record errors and lock events only",
            {},
            false,
            "",
            "planloop dev off",
            "ends dev mode",
            run_dev_off},
    Command{"dev status", "show whether dev mode is on, and what is recorded", kJsonOptions, false, "",
            "planloop dev status", "of this home", run_dev_status},
    Command{"dev dogfood",
            "record all, and keep the installed planloop to go back to",
            {},
            false,
            "Copies the installed binary, remembers its link, and tags the commit of the repository that one is in.\n",
            "planloop dev dogfood",
            "before trying a build of one's own",
            run_dev_dogfood},
    Command{"dev restore",
            "put the planloop back that dogfood kept, and end dev mode",
            {},
            false,
            "",
            "planloop dev restore",
            "after planloop dev dogfood",
            run_dev_restore},
};

}  // namespace

std::span<const Command> record_commands() {
    return kRows;
}

}  // namespace planloop::cli
