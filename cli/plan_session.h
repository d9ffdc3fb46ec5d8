// What the commands about plans (`update`, `status`, `sessions …`) share: which session is meant, and how they fail.
//
// Their failures are status 1 with one line on stderr, as planloop's programs expect it; 2 stays for bad usage.
#ifndef PLANLOOP_CLI_PLAN_SESSION_H
#define PLANLOOP_CLI_PLAN_SESSION_H

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "cli/command.h"
#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop::cli {

inline constexpr int kExitFailed = 1;

// Says why, and is the status.
int failed(const Error &error);

// `wanted` (an id, or a prefix that only one session has), else the current session, else `fallback`.
Result<Session> plan_session(const std::optional<std::string> &wanted, const std::optional<std::string> &fallback = {});

// Where records of an operation go whose session was not found: under the name that was asked for, unless sessions
// begin with it, which it would stand in the way of from then on.
std::optional<Session> session_for_records(const std::optional<std::string> &wanted);

// For the trace: `planloop update --session x`.
std::vector<std::string> command_line(std::string_view name, const Arguments &arguments);

// Before anything is written: a file size limit is then an error of write(2), not a signal that ends planloop half-way.
void survive_size_limit();

// Whether a session has a plan, not only recordings.
bool has_plan(const Session &session);

}  // namespace planloop::cli

#endif
