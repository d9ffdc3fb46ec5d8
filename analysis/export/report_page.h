// The session as one HTML file that opens in any browser, from a file, without a network: `planloop dev report`.
//
// What matters is plain HTML that needs no script: the verdict, the findings with what to do, tables of locks and
// processes. A canvas draws the lock calls, from columns of numbers that the page carries (CallTable, as LEB128 in
// base64: about 20 bytes a call). The page's own style and scripts are in page/, built into the program.
//
// Text that came from traced programs is shown as a terminal would show it (escape.h) and can never become markup or
// script: it stands in HTML escaped, in data as JSON strings without `<`, scripts put it into the document as text
// only, and a content security policy forbids whatever would run all the same.
//
//     ReportPage page(options);
//     Report report = analyse(source, options, [&](const TimelineEntry &entry) { page.add(entry); });
//     page.write(report, read_session_records(session), write);
//
// Memory: by lock calls, up to PageOptions::most_calls. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_EXPORT_REPORT_PAGE_H
#define PLANLOOP_ANALYSIS_EXPORT_REPORT_PAGE_H

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/export/call_table.h"
#include "analysis/report.h"
#include "analysis/session_records.h"

namespace planloop::analysis {

struct PageOptions {
    std::size_t most_calls = 500'000;
    std::size_t most_spans = 50'000;  // the first so many are drawn
};

class ReportPage {
  public:
    explicit ReportPage(const PageOptions &options) : options_(options), calls_(options.most_calls) {}

    void add(const TimelineEntry &entry) { calls_.add(entry); }
    // Hands the file to `write` in pieces, in order; stops when `write` returns false. Once.
    void write(const Report &report, const SessionRecords &records, const std::function<bool(std::string_view)> &write);

  private:
    PageOptions options_;
    CallTable calls_;
};

}  // namespace planloop::analysis

#endif
