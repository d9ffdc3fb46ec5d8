// A call of a language model and what it said, in `llm_transcripts/{trace_id}_llm.json` (the next ones of the same
// trace id: `{trace_id}_2_llm.json` …):
//
//   {"trace_id":"tr_…","timestamp":"…Z","operation":"suggest","provider":"anthropic","model":"…",
//    "request":{"system":"…","prompt":"…","max_tokens":4096,"temperature":0.2},
//    "response":{"content":"…","stop_reason":"end_turn","usage":{"input_tokens":10,"output_tokens":20}},
//    "duration_ms":2300.0,"cost_usd":0.01,"error":null}
//
// `response` is null when there was none, `cost_usd` when it is not known. Texts are redacted (redact.h). A metric
// `llm.latency` goes to performance.jsonl.
//
// Nothing is written with PLANLOOP_NO_RECORDING=1 or without the feature llm_recording (dev_mode.h).
// Errors: one line; nothing half-written stays. Threads: safe. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_TRANSCRIPT_H
#define PLANLOOP_LOCKCORE_TRANSCRIPT_H

#include <cstdint>
#include <optional>
#include <string>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

struct LlmResponse {
    std::string content, stop_reason;
    std::int64_t input_tokens = 0, output_tokens = 0;
};

struct LlmCall {
    std::string provider, model;
    std::string system, prompt;
    std::int64_t max_tokens = 0;
    double temperature = 0;
    std::optional<LlmResponse> response;
    std::int64_t duration_ns = 0;
    std::optional<double> cost_usd;
    std::string error;  // empty: none
};

// Under the thread's trace and operation (operation_trace.h). Gives the path; empty: not recorded.
Result<std::string> record_llm_call(const Session &session, const LlmCall &call);

}  // namespace planloop

#endif
