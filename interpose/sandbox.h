// Programs that forbid themselves system calls: seccomp(2). A filter is for life, and for all that the program starts.
//
// prctl and seccomp are hooked, and a new filter is tried on the calls of the shim (seccomp_filter.h). One that spares
// them changes nothing. Before any other the shim writes into the trace that the program is not traced from here on,
// and then makes no system call of its own any more: here, in forked children, and in the programs that it execs, which
// are told by a mark behind the session's name (settings.h). Their lock calls are counted as dropped where that is
// possible.
//
// A filter that came from a program in which the shim cannot be (a static launcher) is not known here.
#ifndef PLANLOOP_INTERPOSE_SANDBOX_H
#define PLANLOOP_INTERPOSE_SANDBOX_H

#include <cstdint>

#include "interpose/attach.h"

namespace planloop::shim {

// An image number that no image has: enter() refuses.
inline constexpr std::uint32_t kSealedImage = ~0u;

// Around the call that installs a filter.
class Sandboxing {
  public:
    // `filter` points to a sock_fprog; nullptr: the strict mode, which leaves read, write and exit.
    void begin(const void *filter) noexcept;
    void finish(bool installed) noexcept;

  private:
    bool harmful_ = false;
    wire::Record *note_ = nullptr;
};

}  // namespace planloop::shim

#endif
