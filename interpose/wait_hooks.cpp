// Waiting for a child. Whoever does so can release nothing meanwhile: in a ring of `flock a flock b …` the parents hold
// the locks and wait for their children, and only the children wait for locks.
#include <sys/wait.h>

#include <cerrno>

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

// After a call that failed. With these options it is about some of the children only.
pid_t failed(int options) {
    return errno == ECHILD && (static_cast<unsigned>(options) & (__WCLONE | __WNOTHREAD)) == 0
               ? planloop::wire::kNoChildLeft
               : -1;
}

// A child that was stopped or goes on has not ended. A tracer (ptrace(2)) is told of stops without having asked.
pid_t ended(pid_t child, const int *status, int options) {
    if (child < 0) return failed(options);
    return child > 0 && status != nullptr && (WIFSTOPPED(*status) || WIFCONTINUED(*status)) ? 0 : child;
}

// Where to the kernel puts the news: a caller who asks for more than ends and does not want to know which it was gets
// the same answer as without us, and we know.
int *place_of(int *status, int &own, int options) {
    return status == nullptr && (options & (WUNTRACED | WCONTINUED)) != 0 ? &own : status;
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
    int own = 0;
    int *const place = place_of(status, own, options);
    return record_wait(
        pid, options, [=] { return real<Symbol::waitpid>()(pid, place, options); },
        [=](pid_t child) { return ended(child, place, options); });
}

extern "C" int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) PLANLOOP_EXPORT(waitid);
int planloop_waitid(idtype_t type, id_t id, siginfo_t *info, int options) {
    siginfo_t own;
    siginfo_t *const place = info != nullptr ? info : &own;  // Linux does without
    return record_wait(
        child_of(type, id), options, [=] { return real<Symbol::waitid>()(type, id, place, options); },
        [=](int result) -> pid_t {
            // A pidfd may be that of nobody's child.
            if (result != 0) return type == P_PIDFD ? -1 : failed(options);
            const bool over =
                place->si_code == CLD_EXITED || place->si_code == CLD_KILLED || place->si_code == CLD_DUMPED;
            return over ? place->si_pid : 0;  // 0 of WNOHANG: there was no news
        });
}

extern "C" pid_t planloop_wait3(int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait3);
pid_t planloop_wait3(int *status, int options, struct rusage *usage) {
    int own = 0;
    int *const place = place_of(status, own, options);
    return record_wait(
        -1, options, [=] { return real<Symbol::wait3>()(place, options, usage); },
        [=](pid_t child) { return ended(child, place, options); });
}

extern "C" pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) PLANLOOP_EXPORT(wait4);
pid_t planloop_wait4(pid_t pid, int *status, int options, struct rusage *usage) {
    int own = 0;
    int *const place = place_of(status, own, options);
    return record_wait(
        pid, options, [=] { return real<Symbol::wait4>()(pid, place, options, usage); },
        [=](pid_t child) { return ended(child, place, options); });
}
