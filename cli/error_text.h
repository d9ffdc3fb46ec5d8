// An error report (lockcore/error_context.h) for people: what, where, with which values, what the code held and waited
// for. Reports of other programs, and such with fields missing, show what they have.
//
// Errors: a text that is no JSON object. Threads: pure function.
#ifndef PLANLOOP_CLI_ERROR_TEXT_H
#define PLANLOOP_CLI_ERROR_TEXT_H

#include <string>
#include <string_view>

#include "lockcore/result.h"

namespace planloop::cli {

Result<std::string> error_text(std::string_view report);

}  // namespace planloop::cli

#endif
