// Whether processes of a session still run: what the analysis asks for holds and waits without a recorded end.
#ifndef PLANLOOP_CLI_SESSION_LIVENESS_H
#define PLANLOOP_CLI_SESSION_LIVENESS_H

#include <cstdint>
#include <functional>

#include "lockcore/session.h"

namespace planloop::cli {

// Nothing runs any more of a session that was last recorded before this machine was booted. Thread-safe.
std::function<bool(std::int32_t pid, std::uint64_t start_time)> liveness_of(const Session &session);

}  // namespace planloop::cli

#endif
