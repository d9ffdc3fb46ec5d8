// Where the library is that records (libplanloop_preload.so): $PLANLOOP_PRELOAD if set, else beside this program in its
// build tree, else where it was installed. Errors: one line. Threads: safe but for getenv(3).
#ifndef PLANLOOP_CLI_PRELOAD_LIBRARY_H
#define PLANLOOP_CLI_PRELOAD_LIBRARY_H

#include <string>

#include "lockcore/result.h"

namespace planloop::cli {

// An absolute path of a file that can be read and is of this version.
Result<std::string> preload_library();

// The value of LD_PRELOAD with `library` before what is there already. An error if the loader could not read it: it
// parts names at spaces and colons and knows no escape (ld.so(8)).
Result<std::string> preload_value(const std::string &library, const char *present);

}  // namespace planloop::cli

#endif
