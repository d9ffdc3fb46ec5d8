// How the commands have a session analysed.
#ifndef PLANLOOP_CLI_ANALYSIS_OPTIONS_H
#define PLANLOOP_CLI_ANALYSIS_OPTIONS_H

#include "analysis/report.h"
#include "lockcore/session.h"

namespace planloop::cli {

// Those of any command, to which each adds its own: the session's name, what time it is, and whether its processes
// still run (none does of a session that was last recorded before this machine was booted). Thread-safe.
analysis::AnalysisOptions options_for(const Session &session);

}  // namespace planloop::cli

#endif
