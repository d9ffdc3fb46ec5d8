// Trace ids: `tr_<UTC yyyymmddHHMMSS>_<hex>`, six hex digits or more. One names all that one run of a program and its
// children did; it stands in logs and in names of files, so what comes from outside is checked before it is used.
//
// Threads: safe. Signals: not async-signal-safe. Errors: none; without a source of randomness the clock serves.
#ifndef PLANLOOP_LOCKCORE_TRACE_ID_H
#define PLANLOOP_LOCKCORE_TRACE_ID_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace planloop {

inline constexpr char kTraceIdVariable[] = "PLANLOOP_TRACE_ID";
inline constexpr std::size_t kLongestTraceId = 64;

std::string make_trace_id();
std::string make_trace_id(std::int64_t utc_ns, std::uint32_t random);
bool valid_trace_id(std::string_view id);
// From PLANLOOP_TRACE_ID; nothing when it is unset or no trace id.
std::optional<std::string> inherited_trace_id();

}  // namespace planloop

#endif
