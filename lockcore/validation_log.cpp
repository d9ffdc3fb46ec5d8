#include "lockcore/validation_log.h"

#include <fmt/format.h>

#include "lockcore/jsonl.h"
#include "lockcore/operation_trace.h"
#include "lockcore/redact.h"
#include "lockcore/session_journal.h"

namespace planloop {

void record_validation_failure(const Session &session, const ValidationFailure &failure) {
    std::string context = "{\"kind\":\"validation\",\"where\":";
    append_json_string(context, shortened(failure.where));
    context += ",\"expected\":";
    append_json_string(context, shortened(failure.expected));
    context += ",\"got\":";
    append_json_string(context, shortened(redacted(failure.where, failure.got)));
    context += '}';
    const std::string operation = current_trace().operation;
    SessionJournal(session).write("WARNING", operation, fmt::format("validation failed: {}", shortened(failure.where)),
                                  context);
}

}  // namespace planloop
