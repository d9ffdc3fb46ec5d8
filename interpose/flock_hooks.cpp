// flock(2): locks that belong to an open file description.
#include <sys/file.h>

#include "interpose/lock_calls.h"
#include "interpose/real.h"
#include "interpose/recording.h"

namespace planloop::shim {

// LOCK_NB aside, the kernel knows three operations and answers EINVAL to all else (LOCK_MAND was dropped in 5.18).
bool describe_flock(int fd, int operation, void *caller, LockCall &call) noexcept {
    call = {wire::Family::flock, wire::Mode::none, 0, fd, 0, 0, caller};
    if ((operation & LOCK_NB) == 0) call.flags = wire::kBlocking;
    switch (operation & ~LOCK_NB) {
        case LOCK_SH:
            call.mode = wire::Mode::shared;
            break;
        case LOCK_EX:
            call.mode = wire::Mode::exclusive;
            break;
        case LOCK_UN:
            return true;
        default:
            call.flags = static_cast<std::uint8_t>(call.flags | wire::kBadArguments);
    }
    return false;
}

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" int planloop_flock(int fd, int operation) PLANLOOP_EXPORT(flock);
int planloop_flock(int fd, int operation) {
    LockCall call;
    const bool unlock = describe_flock(fd, operation, __builtin_return_address(0), call);
    const auto real_call = [=] {
        if (__builtin_expect(!may_stand_in<Symbol::flock>(), 0)) return real<Symbol::flock>()(fd, operation);
        return libcs_result(wire::raw_syscall6(SYS_flock, fd, operation, 0, 0, 0, 0));
    };
    return unlock ? record_release(call, real_call) : record_acquire(call, real_call);
}
