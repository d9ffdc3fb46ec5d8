// Functions, files and lines of addresses, by the modules' own symbols and debug information (elfutils libdwfl).
// Internal to lockcore: of the own process for exceptions (stack_trace.h), of a dead one for crashes (crash_capture.h).
//
// Separate debug files are looked for by build-id below /usr/lib/debug; nothing is ever fetched from the network,
// whatever DEBUGINFOD_URLS says.
//
// Errors: what is not known is left out. Threads: externally synchronised. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_FRAME_NAMER_H
#define PLANLOOP_LOCKCORE_FRAME_NAMER_H

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lockcore/stack_trace.h"
#include "lockcore/wire/crash_dump.h"

struct Dwfl;

namespace planloop {

class FrameNamer {
  public:
    static FrameNamer of_this_process();
    // `maps`: a copy of that process's /proc/PID/maps. Files that were changed after `utc_ns` are left out.
    static FrameNamer of_maps(const std::string &maps, std::int64_t utc_ns);

    // The function at the address and those that were inlined there, innermost first; at least one frame.
    std::vector<StackFrame> name(std::uint64_t address, bool is_return_address) const;

    // Walks a dead thread's stack, innermost first; the first is where it was, the others are return addresses.
    std::vector<std::uint64_t> unwind(const wire::CrashRegisters &registers, std::uint64_t stack_begin,
                                      std::span<const std::byte> stack) const;

  private:
    struct End {
        void operator()(Dwfl *dwfl) const noexcept;
    };
    explicit FrameNamer(Dwfl *dwfl) : dwfl_(dwfl) {}
    std::unique_ptr<Dwfl, End> dwfl_;
};

}  // namespace planloop

#endif
