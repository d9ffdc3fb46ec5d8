// Data to stdout, messages to stderr. When nobody reads stdout any more (`planloop dev locks | head`), planloop ends at
// once and without a word; any other failure to write is an error.
//
// Threads: write_out() for one at a time; say() for any.
#ifndef PLANLOOP_CLI_OUTPUT_H
#define PLANLOOP_CLI_OUTPUT_H

#include <cstddef>
#include <string_view>

#include "lockcore/result.h"

namespace planloop::cli {

// Buffered. False once writing has failed; then it does nothing.
bool write_out(std::string_view text);
// Writes what is buffered; says why something could not be written.
Result<void> finish_out();

// One line on stderr, "planloop: " before it, in one write; control characters in it are escaped.
void say(std::string_view message);

// Whether stdout may be coloured: `when` is the value of --color, NO_COLOR (https://no-color.org) counts for auto.
bool use_colour(std::string_view when);
// Width of the terminal on stdout, of $COLUMNS, or 80 of old.
std::size_t output_columns();

}  // namespace planloop::cli

#endif
