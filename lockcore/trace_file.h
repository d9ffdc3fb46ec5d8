// traces/{trace_id}.json: made of what a span journal holds, see span.h for its form. Internal to lockcore, but for
// finish_abandoned_traces(), which commands call before they read.
//
// Two operations of one trace id may end at once: joining is done under a lock on `traces/.open/join`.
//
// Errors: Result. Threads and processes: any number. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_TRACE_FILE_H
#define PLANLOOP_LOCKCORE_TRACE_FILE_H

#include <string>

#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/span_journal.h"

namespace planloop {

std::string trace_document(const OperationRecord &operation);

// Writes it, joined with what is there under that trace id.
Result<std::string> write_trace(const Session &session, const OperationRecord &operation);

// Operations that died: their traces are written, marked unfinished. What cannot be read is left where it is.
void finish_abandoned_traces(const Session &session);

}  // namespace planloop

#endif
