#include "interpose/sandbox.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstring>

#include "interpose/descriptors.h"
#include "interpose/exec_environment.h"
#include "interpose/proc_files.h"
#include "interpose/real.h"
#include "interpose/seccomp_filter.h"
#include "interpose/settings.h"

namespace planloop::shim {
namespace {

bool readable_all(const void *begin, std::size_t bytes) noexcept {
    constexpr std::size_t kAtOnce = 4096;
    const char *at = static_cast<const char *>(begin);
    for (; bytes > kAtOnce; at += kAtOnce, bytes -= kAtOnce) {
        if (!wire::readable(at, kAtOnce)) return false;
    }
    return wire::readable(at, bytes);
}

// A program that cannot be read is refused by the kernel.
bool harmful(const void *argument) noexcept {
    if (argument == nullptr) return true;
    if (!wire::readable(argument, sizeof(sock_fprog))) return false;
    const auto *program = static_cast<const sock_fprog *>(argument);
    if (program->len == 0 || program->len > BPF_MAXINSNS) return false;
    if (!readable_all(program->filter, program->len * sizeof(sock_filter))) return false;
    return !filter_spares_us(program->filter, program->len);
}

// What the environment says of the session from now on.
char sealed_session[kSessionBytes];

void seal() noexcept {
    Text(sealed_session, sizeof(sealed_session)) << kSessionName << settings.session << kSealedMark;
    if (char **entry = find_entry(environ, kSessionName)) *entry = sealed_session;
    settings.sealed = true;
    settings.enabled = false;
    static constexpr std::atomic<std::uint64_t> kNothingShared{0};
    shares_about.store(&kNothingShared, std::memory_order_release);
    tracked_mask.store(0, std::memory_order_release);
    if (ForkPage *page = process.page.load(std::memory_order_acquire)) {
        page->image.store(kSealedImage, std::memory_order_release);
    }
}

}  // namespace

void Sandboxing::begin(const void *filter) noexcept {
    Thread &me = thread;
    if (!may_record() || in_vfork_child(me) || !harmful(filter)) return;
    harmful_ = true;
    if (!enter(me)) return;
    char path[512];
    const std::size_t length = read_link("/proc/self/exe", path, sizeof(path));
    const wire::TextPiece text{path, length + 1};
    note_ = me.stream.claim_with_text(process.spool, me.who(process), &text, 1);
    if (note_ == nullptr) return;
    note_->kind = wire::RecordKind::not_traced;
    note_->begin = process.spool.ticks();
    note_->a = static_cast<std::uint64_t>(process.identity.pid);
    note_->b = static_cast<std::uint64_t>(wire::NotTracedCause::sandboxed);
}

void Sandboxing::finish(bool installed) noexcept {
    if (!harmful_) return;
    if (note_ != nullptr) thread.stream.publish(note_, installed ? wire::State::complete : wire::State::annulled);
    if (installed) seal();
}

}  // namespace planloop::shim

using namespace planloop::shim;

extern "C" int planloop_prctl(int option, ...) PLANLOOP_EXPORT(prctl);
int planloop_prctl(int option, ...) {
    // libc's own takes four words whatever the option needs.
    va_list list;
    va_start(list, option);
    const long a = va_arg(list, long);
    const long b = va_arg(list, long);
    const long c = va_arg(list, long);
    const long d = va_arg(list, long);
    va_end(list);
    if (__builtin_expect(option != PR_SET_SECCOMP, 1)) return real<Symbol::prctl>()(option, a, b, c, d);
    Sandboxing sandboxing;
    if (a == SECCOMP_MODE_STRICT) sandboxing.begin(nullptr);
    if (a == SECCOMP_MODE_FILTER) sandboxing.begin(reinterpret_cast<const void *>(b));
    const int result = real<Symbol::prctl>()(option, a, b, c, d);
    sandboxing.finish(result == 0);
    return result;
}
