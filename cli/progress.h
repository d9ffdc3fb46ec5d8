// Shows on a terminal how far the reading of a long recording is.
#ifndef PLANLOOP_CLI_PROGRESS_H
#define PLANLOOP_CLI_PROGRESS_H

#include <memory>

#include "analysis/event.h"

namespace planloop::cli {

// The source, which from its first second on draws a bar on stderr and takes it away again when it is read or dropped.
// The same source where stderr is no terminal. Where lines are written to the same terminal meanwhile, do not use it.
std::unique_ptr<analysis::EventSource> with_progress(std::unique_ptr<analysis::EventSource> source);

}  // namespace planloop::cli

#endif
