// Stands by while a recorded program runs: forwards signals to it, stops and goes on with it, notes the moment at which
// each traced process dies, keeps the spool ahead of them, and has the log written.
//
// The program must not notice: it runs in the same process group and foreground as before, with the signal mask, limits
// and descriptors of whoever started planloop, and its orphans are not collected here. Costs about half a per cent
// of a core when nothing happens.
#ifndef PLANLOOP_CLI_SUPERVISOR_H
#define PLANLOOP_CLI_SUPERVISOR_H

#include <signal.h>

#include <chrono>
#include <cstdint>

#include "cli/child.h"
#include "cli/live_export.h"
#include "cli/supervised_spool.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop::cli {

// What a supervisor reads from a signalfd; blocked before the program starts.
sigset_t supervised_signals();

enum class OnDeadlock : std::uint8_t { report, terminate };

struct Supervised {
    int wait_status = 0;
    bool terminated = false;  // because of a deadlock
    std::chrono::steady_clock::time_point ended_at;
    LiveExport::Outcome outcome;
};

// Returns when the program has ended and what it recorded is taken in, the latter for a second at most. Takes the
// child's pidfd over. A deadlock is told on stderr while it hangs; `terminate` then ends the program and all recorded
// processes: SIGTERM, and SIGKILL for whoever still runs two seconds later.
Result<Supervised> supervise(const Session &session, SupervisedSpool &spool, const Child &child,
                             OnDeadlock on_deadlock);

}  // namespace planloop::cli

#endif
