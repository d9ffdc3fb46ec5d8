// Input that does not fit, as a line of planloop.jsonl that can be counted and looked up by trace id:
//
//   {"timestamp":"…Z","level":"WARNING","trace_id":"tr_…","session_id":"x","operation":"update",
//    "message":"validation failed:
//    payload.tasks[0].status","context":{"kind":"validation","where":"payload.tasks[0].status", "expected":"TODO
//    IN_PROGRESS DONE …","got":"DOEN"}}
//
// `got` is redacted and cut at 200 bytes. Nothing is written with PLANLOOP_NO_RECORDING=1.
// Errors: none; a log is no reason to fail. Threads: safe. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_VALIDATION_LOG_H
#define PLANLOOP_LOCKCORE_VALIDATION_LOG_H

#include <string>

#include "lockcore/session.h"

namespace planloop {

struct ValidationFailure {
    std::string where, expected, got;
};
void record_validation_failure(const Session &session, const ValidationFailure &failure);

}  // namespace planloop

#endif
