// lockf(3): POSIX record locks relative to the file position. libc asks the kernel itself, past any fcntl hook.
#include <unistd.h>

#include "interpose/lock_calls.h"
#include "interpose/real.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

using Lockf = SymbolType<Symbol::lockf>::Function;

int hook_lockf(int fd, int command, off_t length, void *caller, Lockf *real_function) {
    const auto real_call = [=] { return real_function(fd, command, length); };
    if (command == F_TEST || !may_record()) return real_call();
    struct flock lock {};
    lock.l_type = command == F_ULOCK ? F_UNLCK : F_WRLCK;
    lock.l_whence = SEEK_CUR;
    lock.l_len = length;
    LockCall call;
    const bool unlock = describe_fcntl(fd, command == F_LOCK ? F_SETLKW : F_SETLK, &lock, caller, call);
    if (command != F_LOCK && command != F_TLOCK && command != F_ULOCK) {
        call.mode = wire::Mode::none;
        call.flags = static_cast<std::uint8_t>(call.flags | wire::kBadArguments);
    }
    return record_cancellable(call, unlock, real_call);
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;

extern "C" int planloop_lockf(int fd, int command, off_t length) PLANLOOP_EXPORT(lockf);
int planloop_lockf(int fd, int command, off_t length) {
    return hook_lockf(fd, command, length, __builtin_return_address(0), real<Symbol::lockf>());
}

extern "C" int planloop_lockf64(int fd, int command, off_t length) PLANLOOP_EXPORT(lockf64);
int planloop_lockf64(int fd, int command, off_t length) {
    return hook_lockf(fd, command, length, __builtin_return_address(0), real<Symbol::lockf64>());
}
