// Waiting for a child. Whoever does so can release nothing meanwhile: in a ring of `flock a flock b …` the parents hold
// the locks and wait for their children, and only the children wait for locks.
#include <sys/wait.h>

#include "interpose/process_calls.h"
#include "interpose/real.h"

using namespace planloop::shim;

namespace {

// waitid(2)'s way of naming children in waitpid(2)'s words; a pidfd names one that is not known here.
std::int64_t child_of(idtype_t type, id_t id) {
    if (type == P_PID) return static_cast<std::int64_t>(id);
    if (type == P_PGID) return id == 0 ? 0 : -static_cast<std::int64_t>(id);
    return -1;
}

}  // namespace

extern "C" pid_t planloop_wait(int *status) PLANLOOP_EXPORT(wait);
pid_t planloop_wait(int *status) {
    return record_child_wait(-1, [=] { return real<Symbol::wait>()(status); });
}

extern "C" pid_t planloop_waitpid(pid_t pid, int *status, int options) PLANLOOP_EXPORT(waitpid);
pid_t planloop_waitpid(pid_t pid, int *status, int options) {
    const auto real_call = [=] { return real<Symbol::waitpid>()(pid, status, options); };
    return (options & WNOHANG) != 0 ? real_call() : record_child_wait(pid, real_call);
}

extern "C" int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) PLANLOOP_EXPORT(waitid);
int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) {
    const auto real_call = [=] { return real<Symbol::waitid>()(type, id, info, options); };
    return (options & WNOHANG) != 0 ? real_call() : record_child_wait(child_of(type, id), real_call);
}

extern "C" pid_t planloop_wait3(int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait3);
pid_t planloop_wait3(int *status, int options, struct rusage *usage) {
    const auto real_call = [=] { return real<Symbol::wait3>()(status, options, usage); };
    return (options & WNOHANG) != 0 ? real_call() : record_child_wait(-1, real_call);
}

extern "C" pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait4);
pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) {
    const auto real_call = [=] { return real<Symbol::wait4>()(pid, status, options, usage); };
    return (options & WNOHANG) != 0 ? real_call() : record_child_wait(pid, real_call);
}
