// The report at the end of a run: that of the analysis which went along, unless it did not get everything, or not in
// order (a ring was overwritten, descriptors were short); then the recording is read once more, for as long as the
// caller may wait. A recording can take minutes to read, and whoever ran the program waits for its end.
//
// Threads: one user. What is not ready in time is left behind in a thread of its own, so the process must then end with
// _exit(2). Errors: told on stderr.
#ifndef PLANLOOP_CLI_FINAL_REPORT_H
#define PLANLOOP_CLI_FINAL_REPORT_H

#include <chrono>
#include <optional>
#include <string>

#include "analysis/report.h"
#include "cli/live_export.h"
#include "lockcore/session.h"

namespace planloop::cli {

// Says what was recorded and the verdict, or why not. `spool_path`: of the run. `until`: not set where the verdict
// decides the exit status; then nothing means that the recording cannot be read.
std::optional<analysis::Report> tell_verdict(const Session &session, const std::string &spool_path,
                                             const LiveExport::Outcome &outcome,
                                             std::optional<std::chrono::steady_clock::time_point> until);

}  // namespace planloop::cli

#endif
