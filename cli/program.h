// The program that a user asks to run: where it is, and whether a preloaded library can be in it at all.
//
// Threads: safe but for getenv(3). Errors: what cannot be read is no obstacle; the kernel has the last word.
#ifndef PLANLOOP_CLI_PROGRAM_H
#define PLANLOOP_CLI_PROGRAM_H

#include <optional>
#include <string>

#include "lockcore/wire/record.h"

namespace planloop::cli {

// As execvp(3) searches: through $PATH when there is no slash in the name. Empty: not found.
std::string find_program(const std::string &name);

struct Obstacle {
    wire::NotTracedCause cause{};
    std::string path;            // of the program that the kernel would load: for a script its interpreter
    std::string reason;          // goes on after "PATH is not traced: "
    bool preload_harms = false;  // its loader would complain about or choke on a library of another kind
};

// Why the shim could not be in the program at `path`, if so. Follows `#!` lines as the kernel does.
std::optional<Obstacle> obstacle_to_tracing(const std::string &path);

// What a shell says when execvp(3) failed with `error`, and the status it exits with: 127 not found, else 126.
std::string exec_failure_text(const std::string &name, int error);
int exec_failure_status(int error);

}  // namespace planloop::cli

#endif
