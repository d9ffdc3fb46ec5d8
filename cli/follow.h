// `dev locks --follow` and `--waiting`: a session that may still be recorded, from another terminal or after its
// supervisor died.
#ifndef PLANLOOP_CLI_FOLLOW_H
#define PLANLOOP_CLI_FOLLOW_H

#include "analysis/render/text.h"
#include "analysis/report.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop::cli {

// Writes each line of the timeline when it happens, as text or as one JSON object a line, until no process of the
// session and no supervisor is left, or until SIGINT or SIGTERM; text then ends with the report. Deadlocks are told on
// stderr while they hang. Every event is written, in order; a line may be up to a second late while it is not certain.
Result<analysis::Report> follow_session(const Session &session, analysis::AnalysisOptions options, bool json,
                                        const analysis::TextStyle &style);

// Who waits now: for each lock its waiters in the order in which they came, how long they have been waiting, and for
// whom.
Result<analysis::Report> show_waiting(const Session &session, const analysis::AnalysisOptions &options, bool json,
                                      const analysis::TextStyle &style);

}  // namespace planloop::cli

#endif
