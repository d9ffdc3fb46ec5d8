// `planloop dev locks --system`: every file lock of the machine as it is now, of programs that nobody traced. The
// source is analysis/source/system_locks.h; a circular wait is told only when its threads have slept on through a
// second look.
#ifndef PLANLOOP_CLI_SYSTEM_LOCKS_H
#define PLANLOOP_CLI_SYSTEM_LOCKS_H

#include "analysis/render/text.h"
#include "analysis/report.h"
#include "cli/locks_options.h"
#include "lockcore/result.h"

namespace planloop::cli {

// Writes to stdout: text, JSON (schema planloop.locks/1, with an empty timeline) or a graph, not JSON lines.
Result<analysis::Report> show_system(LocksFormat format, const analysis::Filter &filter,
                                     const analysis::TextStyle &style);

}  // namespace planloop::cli

#endif
