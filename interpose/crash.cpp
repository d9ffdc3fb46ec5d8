#include "interpose/crash.h"

#include <errno.h>
#include <signal.h>

#include <cstring>

#include "interpose/settings.h"
#include "lockcore/wire/crash_dump.h"

namespace planloop::shim {
namespace {

constexpr int kSignals[] = {SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};

wire::CrashPlan plan;
int captured = 0;

void on_crash(int signal, siginfo_t *info, void *context) noexcept {
    if (__atomic_exchange_n(&captured, 1, __ATOMIC_RELAXED) == 0) {
        wire::write_crash_dump(plan, signal, info, context, nullptr, 0);
    }
    wire::die_as_before(signal, info);
}

}  // namespace

void watch_crashes() noexcept {
    constexpr char kSpool[] = "/spool";
    const std::size_t length = std::strlen(settings.spool_folder) - (sizeof(kSpool) - 1);
    std::memcpy(plan.folder, settings.spool_folder, length);
    plan.folder[length] = '\0';
    wire::append_crash_text(plan.folder, length, sizeof(plan.folder), "/errors/.crash");
    wire::append_crash_text(plan.header.trace_id, 0, sizeof(plan.header.trace_id), settings.trace_id);
    wire::append_crash_text(plan.header.process, 0, sizeof(plan.header.process), program_invocation_short_name);
    struct sigaction action {};
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigfillset(&action.sa_mask);
    const int error = errno;
    for (const int signal : kSignals) {
        struct sigaction before {};
        if (sigaction(signal, nullptr, &before) != 0 || (before.sa_flags & SA_SIGINFO) != 0) continue;
        if (before.sa_handler == SIG_DFL) sigaction(signal, &action, nullptr);
    }
    errno = error;
}

}  // namespace planloop::shim
