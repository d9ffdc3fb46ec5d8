// planloop dev preload-path: one line, for LD_PRELOAD=$(planloop dev preload-path).

#include "cli/command.h"
#include "cli/output.h"
#include "cli/preload_library.h"

namespace planloop::cli {

Result<int> run_dev_preload_path(const Arguments &) {
    const Result<std::string> library = preload_library();
    if (!library) return library.error();
    write_out(*library + '\n');
    return kExitDone;
}

}  // namespace planloop::cli
