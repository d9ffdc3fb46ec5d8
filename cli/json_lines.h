// Lines of planloop.jsonl and performance.jsonl, one by one, as they are and with the fields by which they are found.
// Lines that are no JSON object (torn, foreign), and those of more than 1 MiB, are passed over and counted.
//
// Errors: a file that cannot be read; one that is missing is empty. Threads: no state. Memory: one line.
#ifndef PLANLOOP_CLI_JSON_LINES_H
#define PLANLOOP_CLI_JSON_LINES_H

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "lockcore/result.h"

namespace planloop::cli {

struct JsonLine {
    std::string_view text;                                             // without the newline; valid during the call
    std::string trace_id;                                              // of the line, or of its tags
    std::string timestamp, event, level, operation, message, context;  // context: JSON
};

struct JsonLineCount {
    std::uint64_t lines = 0;
    std::uint64_t passed_over = 0;
};

bool is_json_object(std::string_view text);
// What a document says of its time (`timestamp` or `started_at`); empty: nothing.
std::string time_of_document(std::string_view text);

// Until `use` gives false.
Result<JsonLineCount> each_json_line(const std::string &path, const std::function<bool(const JsonLine &)> &use);

}  // namespace planloop::cli

#endif
