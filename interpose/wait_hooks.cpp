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

// A child that was stopped or goes on has not ended. A tracer (ptrace(2)) is told of stops without having asked.
pid_t ended(pid_t child, const int *status, int options) {
    if (child <= 0) return child;
    if (status != nullptr) return WIFSTOPPED(*status) || WIFCONTINUED(*status) ? 0 : child;
    return (options & (WUNTRACED | WCONTINUED)) == 0 ? child : 0;
}

// Without WNOHANG the call may wait.
template <class Real, class Reaped>
auto record_wait(std::int64_t child, int options, Real real_call, Reaped reaped) {
    if ((options & WNOHANG) == 0) return record_child_wait(child, real_call, reaped);
    const auto result = real_call();
    note_reaped(child, reaped(result));
    return result;
}

}  // namespace

extern "C" pid_t planloop_wait(int *status) PLANLOOP_EXPORT(wait);
pid_t planloop_wait(int *status) {
    return record_wait(
        -1, 0, [=] { return real<Symbol::wait>()(status); }, [=](pid_t child) { return ended(child, status, 0); });
}

extern "C" pid_t planloop_waitpid(pid_t pid, int *status, int options) PLANLOOP_EXPORT(waitpid);
pid_t planloop_waitpid(pid_t pid, int *status, int options) {
    return record_wait(
        pid, options, [=] { return real<Symbol::waitpid>()(pid, status, options); },
        [=](pid_t child) { return ended(child, status, options); });
}

extern "C" int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) PLANLOOP_EXPORT(waitid);
int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) {
    return record_wait(
        child_of(type, id), options, [=] { return real<Symbol::waitid>()(type, id, info, options); },
        [=](int result) -> pid_t {
            if (result != 0 || info == nullptr) return result;
            const bool over = info->si_code == CLD_EXITED || info->si_code == CLD_KILLED || info->si_code == CLD_DUMPED;
            return over ? info->si_pid : 0;  // 0 of WNOHANG: there was no news
        });
}

extern "C" pid_t planloop_wait3(int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait3);
pid_t planloop_wait3(int *status, int options, struct rusage *usage) {
    return record_wait(
        -1, options, [=] { return real<Symbol::wait3>()(status, options, usage); },
        [=](pid_t child) { return ended(child, status, options); });
}

extern "C" pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait4);
pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) {
    return record_wait(
        pid, options, [=] { return real<Symbol::wait4>()(pid, status, options, usage); },
        [=](pid_t child) { return ended(child, status, options); });
}
