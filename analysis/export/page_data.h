// What the report page's script works on, as one JSON object that can stand inside a <script> element: findings, names,
// spans, and the lock calls in columns of numbers (LEB128, base64), which page/data.js decodes. Threads: pure function.
#ifndef PLANLOOP_ANALYSIS_EXPORT_PAGE_DATA_H
#define PLANLOOP_ANALYSIS_EXPORT_PAGE_DATA_H

#include <cstddef>
#include <string>

#include "analysis/export/call_table.h"
#include "analysis/report.h"
#include "analysis/session_records.h"

namespace planloop::analysis {

// `calls` is finished. The first `most_spans` spans are told.
std::string page_data(const Report &report, const SessionRecords &records, const CallTable &calls,
                      std::size_t most_spans);

}  // namespace planloop::analysis

#endif
