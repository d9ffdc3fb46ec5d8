// Text from traced programs (paths, command lines) made safe to show. Any byte can be in it: a file name may hold
// terminal control sequences, and need not be UTF-8. (For JSON there is append_json_string() in lockcore/jsonl.h.)
//
// Threads: pure functions.
#ifndef PLANLOOP_ANALYSIS_RENDER_ESCAPE_H
#define PLANLOOP_ANALYSIS_RENDER_ESCAPE_H

#include <cstddef>
#include <string>
#include <string_view>

namespace planloop::analysis {

// Appends text for a terminal: controls (C0, DEL, C1), bidirectional overrides and invalid bytes become \n, \t, \xNN or
// \u{NNNN}, so that nothing that is shown can move the cursor or reorder a line. Backslashes stay as they are.
void append_terminal_text(std::string &out, std::string_view text);
std::string terminal_text(std::string_view text);

// Columns that well-behaved text takes on a terminal; counts code points, so wide East Asian ones count once.
std::size_t display_width(std::string_view text);

}  // namespace planloop::analysis

#endif
