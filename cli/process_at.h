// What a session's lock events tell of one thread at one moment: under which trace id it ran, which locks its process
// held, and which it waited for. For crashes of programs that are only traced.
//
// Errors: nothing known. Threads: no state. Cost: one pass over the session.
#ifndef PLANLOOP_CLI_PROCESS_AT_H
#define PLANLOOP_CLI_PROCESS_AT_H

#include <cstdint>

#include "lockcore/crash_capture.h"
#include "lockcore/session.h"

namespace planloop::cli {

ProcessAtCrash process_at(const Session &session, std::int32_t pid, std::int32_t tid, std::int64_t utc_ns);

}  // namespace planloop::cli

#endif
