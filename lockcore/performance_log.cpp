#include "lockcore/performance_log.h"

#include <fmt/format.h>

#include <cmath>
#include <string>

#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/jsonl.h"
#include "lockcore/operation_trace.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"

namespace planloop {

Result<void> record_metrics(const Session &session, std::span<const Metric> metrics,
                            std::initializer_list<MetricTag> tags) {
    if (metrics.empty() || !recording_features().profiling) return {};
    const OperationTrace trace = current_trace();
    const std::string trace_id = current_trace_id();
    std::string lines;
    for (const Metric &metric : metrics) {
        lines += "{\"timestamp\":\"";
        append_utc(lines, utc_now_ns());
        lines += "\",\"metric\":";
        append_json_string(lines, metric.name);
        lines += fmt::format(",\"value\":{},\"tags\":{{", std::isfinite(metric.value) ? metric.value : 0.0);
        std::string_view comma;
        const auto tag = [&](std::string_view key, std::string_view value) {
            if (value.empty()) return;
            lines += comma;
            append_json_string(lines, key);
            lines += ':';
            append_json_string(lines, shortened(redacted(key, value)));
            comma = ",";
        };
        tag("command", trace.operation);
        tag("trace_id", trace_id);
        tag("unit", metric.unit);
        for (const auto &[key, value] : tags) tag(key, value);
        lines += "}}\n";
    }
    if (auto made = make_record_folder(session.logs_dir()); !made) return made;
    auto log = LineAppender::open(performance_file(session));
    if (!log) return log.error();
    return log->append(lines);
}

}  // namespace planloop
