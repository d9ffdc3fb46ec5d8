// How processes begin and end: the constructor, fork and its kin, exit and its kin.
#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "interpose/crash.h"
#include "interpose/descriptor_calls.h"
#include "interpose/inherited.h"
#include "interpose/process_calls.h"
#include "interpose/real.h"
#include "interpose/settings.h"
#include "interpose/shares.h"
#include "interpose/sharing_mark.h"

// What at_quick_exit() is told of who registers, which matters to dlclose() alone. The compiler's start files, which
// define it otherwise, are not linked.
extern "C" {
__attribute__((visibility("hidden"))) void *__dso_handle = nullptr;  // NOLINT
}

namespace planloop::shim {

namespace {

// What each child of a process that makes many would have to find out by itself.
void prepare_for_more_children() noexcept {
    const std::uint32_t forks = process.forks.load(std::memory_order_relaxed);
    if (forks == 2) return;
    process.forks.store(forks + 1, std::memory_order_relaxed);
    if (forks != 1) return;
    may_stand_in<Symbol::flock>();
    pid_namespace();
    wire::clock_ns(CLOCK_MONOTONIC);  // so that it is bound
}

// Children are often reaped in a handler of SIGCHLD, and a stack for handlers may have no room for an introduction.
bool may_attach_for(Thread &me, pid_t reaped) noexcept {
    if (!wire::may_have_recorded(process.spool.header(), reaped) || in_vfork_child(me)) return false;
    stack_t stack{};
    return wire::raw_syscall(SYS_sigaltstack, nullptr, &stack) == 0 && (stack.ss_flags & SS_ONSTACK) == 0;
}

}  // namespace

bool prepare_child() noexcept {
    const bool concerns_locks = prepare_fork();
    if (settings.enabled && !in_vfork_child(thread)) {
        note_descriptors_for_child();
        prepare_for_more_children();
    }
    return concerns_locks;
}

bool prepare_fork() noexcept {
    read_settings();
    if (!settings.enabled || in_vfork_child(thread) || !open_spool()) return false;
    return adopt_all() || attached(thread);
}

void remember_child(std::int32_t child) noexcept {
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr || child <= 0) return;
    const std::uint32_t place = page->next_child.fetch_add(1, std::memory_order_relaxed) % kRememberedChildren;
    page->children[place].store(child, std::memory_order_relaxed);
}

bool forget_children(std::int64_t child, pid_t reaped) noexcept {
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr || (reaped <= 0 && reaped != wire::kNoChildLeft)) return false;
    const std::int64_t over = reaped > 0 ? reaped : child;
    bool any = false;
    for (std::atomic<std::int32_t> &remembered : page->children) {
        std::int32_t pid = remembered.load(std::memory_order_relaxed);
        if (pid <= 0 || (over != -1 && pid != over)) continue;
        any = remembered.compare_exchange_strong(pid, 0, std::memory_order_relaxed) || any;
    }
    return any;
}

void note_exit(wire::ExitCause cause, int status) noexcept {
    Thread &me = thread;
    if (!settings.enabled || in_vfork_child(me)) return;
    if (!adopt_all() && !attached(me)) return;
    if (!enter(me)) return;
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page->exited.exchange(1, std::memory_order_relaxed) != 0) return;
    write_note(me, {.kind = wire::RecordKind::exit,
                    .a = static_cast<std::uint64_t>(cause),
                    .b = static_cast<std::uint64_t>(status)});
    if (process.spool.is_ring()) me.stream.leave();
    process.spool.leave_clocks();
}

void note_reaped(std::int64_t child, pid_t reaped) noexcept {
    const bool none_left = reaped == wire::kNoChildLeft;
    if ((reaped <= 0 && !none_left) || !settings.enabled || !spool_is_mapped()) return;
    Thread &me = thread;
    const int error = errno;
    // Many ask until they hear that none is left, which is news only where children ended without a word.
    const bool news =
        none_left ? attached(me) && forget_children(child, reaped) : attached(me) || may_attach_for(me, reaped);
    if (news && enter(me)) {
        if (process.spool.is_ring()) introduce_in_chunk(me);
        if (wire::Record *const record = me.stream.claim(process.spool, me.who(process)); record != nullptr) {
            record->kind = wire::RecordKind::wait_child;
            record->fd = -1;
            record->a = static_cast<std::uint64_t>(child);
            record->b = static_cast<std::uint64_t>(reaped);
            record->begin = record->end = process.spool.ticks();
            me.stream.publish(record, wire::State::complete);
        }
    }
    if (!in_vfork_child(me)) forget_children(child, reaped);
    errno = error;
}

// Attached before the fork, since a stream's records stand in the order of their times.
ForkRecord::ForkRecord() noexcept : concerns_locks_(prepare_child() && enter(thread)) {
    if (concerns_locks_) before_ = process.spool.ticks();
}

void ForkRecord::finish(std::int32_t child) const noexcept {
    if (settings.enabled && child > 0) remember_child(child);
    if (!concerns_locks_ || child <= 0) return;
    Thread &me = thread;
    if (tracked_mask.load(std::memory_order_relaxed) != 0) {
        announce_sharing(child);
        share_with_child(child);
    }
    if (!enter(me)) return;
    wire::Record *record = me.stream.claim(process.spool, me.who(process));
    if (record == nullptr) return;
    record->kind = wire::RecordKind::fork;
    record->a = static_cast<std::uint64_t>(child);
    record->begin = before_;  // the child may have done much by now
    me.stream.publish(record, wire::State::complete);
}

ChildRecord::ChildRecord() noexcept : recorded_(settings.enabled && attached(thread) && enter(thread)) {
    if (recorded_) before_ = process.spool.ticks();
}

void ChildRecord::finish(std::int32_t child) const noexcept {
    if (!settings.enabled || child <= 0) return;
    remember_child(child);
    Thread &me = thread;
    if (!recorded_ || !enter(me)) return;
    if (wire::Record *record = me.stream.claim(process.spool, me.who(process))) {
        record->kind = wire::RecordKind::child;
        record->fd = -1;
        record->a = static_cast<std::uint64_t>(child);
        record->begin = before_;
        me.stream.publish(record, wire::State::complete);
    }
}

namespace {

void note_quick_exit() {
    note_exit(wire::ExitCause::quick, 0);
}

// Registered before everything else, so it runs after the program's exit handlers and all destructors, shortly before
// the kernel closes what is open.
PLANLOOP_AT_START void note_end(int status, void * /*unused*/) {
    // Else touch nothing more: most have no news.
    if (spool_is_mapped() || shared_about()) note_exit(wire::ExitCause::exit, status);
}

// Runs before main, in every process: keep it short.
__attribute__((constructor)) void start() {
    resolve_eager();
    read_settings();
    if (!settings.enabled) return;
    note_descriptors_at_start();
    on_exit(note_end, nullptr);
    on_exit(note_end, nullptr);
    at_quick_exit(note_quick_exit);  // registered first, so it runs last
    hide_carried_settings();
    if (settings.inherits) adopt_from_environment();
    if (has_lockable_descriptors()) expect_shares();
    if (settings.captures_crashes) watch_crashes();
}

template <Symbol symbol>
pid_t hook_fork() {
    return static_cast<pid_t>(record_fork([] { return real<symbol>()(); }));
}

// clone(3) starts the child in a function on a stack of its own. With memory of its own it is a fork; with ours, but
// descriptors of its own, it must not speak about them in this process's name, for as long as it lives.
constexpr int kOwnDescriptors = CLONE_VM;
bool runs_in_our_memory(int flags) noexcept {
    return (flags & (CLONE_VM | CLONE_FILES | CLONE_THREAD)) == kOwnDescriptors;
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" pid_t planloop_fork() PLANLOOP_EXPORT(fork);
pid_t planloop_fork() {
    return hook_fork<Symbol::fork>();
}

extern "C" pid_t planloop___fork() PLANLOOP_EXPORT(__fork);
pid_t planloop___fork() {
    return hook_fork<Symbol::__fork>();
}

extern "C" pid_t planloop__Fork() PLANLOOP_EXPORT(_Fork);
pid_t planloop__Fork() {
    return hook_fork<Symbol::_Fork>();
}

extern "C" int planloop_clone(int (*start)(void *), void *stack, int flags, void *argument, ...) PLANLOOP_EXPORT(clone);
int planloop_clone(int (*start)(void *), void *stack, int flags, void *argument, ...) {
    va_list list;
    va_start(list, argument);
    void *parent_tid = va_arg(list, void *);
    void *tls = va_arg(list, void *);
    void *child_tid = va_arg(list, void *);
    va_end(list);
    const auto real_call = [=] {
        return real<Symbol::clone>()(start, stack, flags, argument, parent_tid, tls, child_tid);
    };
    if ((flags & CLONE_VM) == 0) return static_cast<int>(record_fork(real_call));
    if (!runs_in_our_memory(flags) || !settings.enabled) return real_call();
    Thread &me = thread;
    prepare_child();
    if (in_vfork_child(me) || !enter(me)) return real_call();
    const ChildRecord record;
    // The child may have this thread's variables too.
    me.vfork_parent = static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
    process.own_pid.store(me.vfork_parent, std::memory_order_release);
    const int child = real_call();
    record.finish(child);
    note_spawned(me, child);
    return child;
}

// vfork returns twice on one stack, so no C++ frame may stand between it and its caller: prepare, then jump.
extern "C" __attribute__((used)) void *planloop_before_vfork() {
    // A vfork child that forks in this way again: the memory, and what is noted in it, stays its parent's.
    if (settings.enabled && !in_vfork_child(thread)) {
        prepare_child();
        thread.vfork_parent = static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
        thread.tid = static_cast<std::int32_t>(wire::raw_syscall(SYS_gettid));
        thread.vfork_copied = false;
        thread.vfork_told = 0;
    }
    return reinterpret_cast<void *>(real<Symbol::vfork>());
}

#if defined(__x86_64__)
__asm__(
    ".text\n"
    ".globl vfork\n"
    ".type vfork, @function\n"
    ".globl __vfork\n"
    ".type __vfork, @function\n"
    "vfork:\n"
    "__vfork:\n"
    "  .cfi_startproc\n"
    "  endbr64\n"
    "  subq $8, %rsp\n"
    "  .cfi_adjust_cfa_offset 8\n"
    "  call planloop_before_vfork\n"
    "  addq $8, %rsp\n"
    "  .cfi_adjust_cfa_offset -8\n"
    "  jmp *%rax\n"
    "  .cfi_endproc\n"
    ".size vfork, . - vfork\n"
    ".size __vfork, . - __vfork\n");
#endif

// As libc's daemon(3) does it, but through the hooks: libc's own fork and _exit in there reach none.
extern "C" int planloop_daemon(int keep_folder, int keep_streams) PLANLOOP_EXPORT(daemon);
int planloop_daemon(int keep_folder, int keep_streams) {
    const pid_t child = planloop_fork();
    if (child < 0) return -1;
    if (child > 0) _exit(0);
    if (setsid() == -1) return -1;
    if (keep_folder == 0) static_cast<void>(chdir("/"));
    if (keep_streams != 0) return 0;
    const int null = open(_PATH_DEVNULL, O_RDWR);
    struct stat status {};
    if (null == -1 || fstat(null, &status) != 0) {
        if (null != -1) close(null);
        return -1;
    }
    if (!S_ISCHR(status.st_mode)) {
        close(null);
        errno = ENODEV;
        return -1;
    }
    for (int stream = 0; stream <= 2; ++stream) dup2(null, stream);
    if (null > 2) close(null);
    return 0;
}

extern "C" __attribute__((noreturn)) void planloop__exit(int status) PLANLOOP_EXPORT(_exit);
void planloop__exit(int status) {
    note_exit(wire::ExitCause::immediate, status);
    real<Symbol::_exit>()(status);
    __builtin_unreachable();
}

extern "C" __attribute__((noreturn)) void planloop__Exit(int status) PLANLOOP_EXPORT(_Exit);
void planloop__Exit(int status) {
    note_exit(wire::ExitCause::immediate, status);
    real<Symbol::_Exit>()(status);
    __builtin_unreachable();
}
