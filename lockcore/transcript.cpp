#include "lockcore/transcript.h"

#include <fmt/format.h>

#include <array>
#include <cmath>
#include <nlohmann/json.hpp>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/operation_trace.h"
#include "lockcore/performance_log.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"

namespace planloop {
namespace {

using Json = nlohmann::ordered_json;

Json number_or_null(double value) {
    return std::isfinite(value) ? Json(value) : Json();
}

}  // namespace

Result<std::string> record_llm_call(const Session &session, const LlmCall &call) {
    if (!recording_features().llm_recording) return std::string();
    const OperationTrace trace = current_trace();
    const std::string trace_id = current_trace_id();
    Json response;
    if (call.response) {
        response = {{"content", redacted(call.response->content)},
                    {"stop_reason", call.response->stop_reason},
                    {"usage",
                     {{"input_tokens", call.response->input_tokens}, {"output_tokens", call.response->output_tokens}}}};
    }
    const double duration_ms = static_cast<double>(call.duration_ns) / 1e6;
    const Json transcript{{"trace_id", trace_id},
                          {"timestamp", format_utc(utc_now_ns())},
                          {"operation", trace.operation},
                          {"provider", call.provider},
                          {"model", call.model},
                          {"request",
                           {{"system", redacted(call.system)},
                            {"prompt", redacted(call.prompt)},
                            {"max_tokens", call.max_tokens},
                            {"temperature", number_or_null(call.temperature)}}},
                          {"response", response},
                          {"duration_ms", duration_ms},
                          {"cost_usd", call.cost_usd ? number_or_null(*call.cost_usd) : Json()},
                          {"error", call.error.empty() ? Json() : Json(redacted(call.error))}};
    const std::string text = transcript.dump(2, ' ', false, Json::error_handler_t::replace) + '\n';
    const std::array parts{RecordPart{"_llm.json", text}};
    const auto stem = write_record(transcripts_dir(session), trace_id, parts);
    if (!stem) return stem.error();
    const std::array metrics{Metric{"llm.latency", duration_ms, "ms"}};
    const auto logged = record_metrics(session, metrics, {{"provider", call.provider}, {"model", call.model}});
    if (!logged) return logged.error();
    return fmt::format("{}/{}_llm.json", transcripts_dir(session), *stem);
}

}  // namespace planloop
