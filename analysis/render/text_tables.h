// The tables of a report for people: who made others wait, the locks, the call sites, and the chain of waits that
// decided when the recording ended. Each says what its shares are a share of.
#ifndef PLANLOOP_ANALYSIS_RENDER_TEXT_TABLES_H
#define PLANLOOP_ANALYSIS_RENDER_TEXT_TABLES_H

#include <string>

#include "analysis/render/text.h"
#include "analysis/report.h"

namespace planloop::analysis {

void append_tables(std::string &out, const Report &report, const TextStyle &style);

}  // namespace planloop::analysis

#endif
