// Becoming another user, as daemons, su and sudo do, or getting another root folder. Another user may not open the
// recording, and from another root its name leads nowhere; but both go on in what is mapped already, up to the end of
// its window (spool_writer.h). So it is opened before, and whether descriptors are shared cannot be looked up later
// either. What another user starts cannot record, and exec says so (exec_hooks.cpp).
#include <unistd.h>

#include <cerrno>

#include "interpose/attach.h"
#include "interpose/real.h"
#include "interpose/settings.h"
#include "interpose/shares.h"

using namespace planloop::shim;

namespace {

bool prepare_to_leave(Thread &me) noexcept {
    if (!may_record() || in_vfork_child(me) || !enter(me)) return false;
    open_share_table();
    return true;
}

template <class Real>
int record_change(Real real_call) {
    Thread &me = thread;
    const bool recording = prepare_to_leave(me);
    const int result = real_call();
    if (result == 0 && recording) {
        constexpr int kReadAndWrite = 6;  // R_OK | W_OK
        const long reach = planloop::wire::raw_syscall(SYS_faccessat, AT_FDCWD, process.spool.path(), kReadAndWrite);
        process.out_of_reach.store(reach == -EACCES, std::memory_order_relaxed);
    }
    return result;
}

}  // namespace

extern "C" int planloop_setuid(uid_t user) PLANLOOP_EXPORT(setuid);
int planloop_setuid(uid_t user) {
    return record_change([=] { return real<Symbol::setuid>()(user); });
}

extern "C" int planloop_setreuid(uid_t real_user, uid_t effective) PLANLOOP_EXPORT(setreuid);
int planloop_setreuid(uid_t real_user, uid_t effective) {
    return record_change([=] { return real<Symbol::setreuid>()(real_user, effective); });
}

extern "C" int planloop_setresuid(uid_t real_user, uid_t effective, uid_t saved) PLANLOOP_EXPORT(setresuid);
int planloop_setresuid(uid_t real_user, uid_t effective, uid_t saved) {
    return record_change([=] { return real<Symbol::setresuid>()(real_user, effective, saved); });
}

extern "C" int planloop_chroot(const char *folder) PLANLOOP_EXPORT(chroot);
int planloop_chroot(const char *folder) {
    prepare_to_leave(thread);
    return real<Symbol::chroot>()(folder);
}
