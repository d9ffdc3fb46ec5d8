// Text from traced programs, made safe for the places of a page. Threads: pure functions.
#ifndef PLANLOOP_ANALYSIS_EXPORT_PAGE_TEXT_H
#define PLANLOOP_ANALYSIS_EXPORT_PAGE_TEXT_H

#include <cstdint>
#include <string>
#include <string_view>

namespace planloop::analysis {

// For HTML text and quoted attributes. Controls, bidirectional overrides and invalid bytes are shown as on a terminal.
std::string html_text(std::string_view text);

// A JSON string, with its quotes, that can stand inside a <script> element: without `<`, so that no `</script>` or
// `<!--` can end or change it (WHATWG HTML, 4.12.1.3).
void append_script_string(std::string &out, std::string_view text);

void append_base64(std::string &out, std::string_view bytes);  // RFC 4648, padded

void append_varint(std::string &out, std::uint64_t value);  // LEB128

}  // namespace planloop::analysis

#endif
