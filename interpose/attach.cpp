#include "interpose/attach.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include <cerrno>

#include "interpose/descriptors.h"
#include "interpose/inherited.h"
#include "interpose/introduction.h"
#include "interpose/ring.h"
#include "interpose/settings.h"
#include "interpose/shares.h"

namespace planloop::shim {

alignas(512) Process process;  // what is written at each start and fork lies on one page
constinit thread_local Thread thread{};

namespace {

ForkPage *make_fork_page() noexcept {
    const long mapped = wire::raw_syscall(SYS_mmap, nullptr, wire::kPageBytes, PROT_READ | PROT_WRITE,
                                          MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped < 0 && mapped > -4096) return nullptr;
    if (wire::raw_syscall(SYS_madvise, mapped, wire::kPageBytes, MADV_WIPEONFORK) != 0) {
        wire::raw_syscall(SYS_munmap, mapped, wire::kPageBytes);
        return nullptr;
    }
    auto *page = reinterpret_cast<ForkPage *>(mapped);
    ForkPage *nobody = nullptr;
    if (!process.page.compare_exchange_strong(nobody, page, std::memory_order_acq_rel)) {
        wire::raw_syscall(SYS_munmap, mapped, wire::kPageBytes);
        return nobody;
    }
    return page;
}

void join(Thread &me, std::uint32_t image) noexcept {
    me.stream.forget();
    if (me.speaks_for == 0) me.tid = static_cast<std::int32_t>(wire::raw_syscall(SYS_gettid));
    me.depth = 0;
    me.ring_chunk = 0;
    me.trusted_fd = -1;
    me.image = image;
}

// Yields until somebody has a turn; a turn takes microseconds, unless its owner was killed (a vfork child) or stopped.
constexpr int kPatience = 20'000;

// A program without a descriptor to spare may have one later. Asked after the first lost event, the second, the fourth
// and so on, and then each sixty-fourth.
bool worth_another_try() noexcept {
    const std::uint32_t lost = process.unopened.load(std::memory_order_relaxed);
    return (lost & (lost - 1)) == 0 || lost % 64 == 0;
}

bool out_of_descriptors() noexcept {
    const int error = process.open_error.load(std::memory_order_relaxed);
    return error == -EMFILE || error == -ENFILE;
}

// A supervisor that knows this process under another number must not take it for gone.
void note_pid_namespace() noexcept {
    wire::SpoolHeader &header = process.spool.header();
    if (header.foreign_pids.load(std::memory_order_relaxed) != 0 || header.pid_space == 0) return;
    if (header.pid_space != pid_namespace()) header.foreign_pids.store(1, std::memory_order_release);
}

// What will soon be written to is asked as if it were written to: after a fork, or in memory that was never touched, a
// load first would be a page fault more. (GCC makes a load of fetch_or(0).)
template <class T>
bool is_zero_and_writable(std::atomic<T> &word) noexcept {
    T zero{};
    return word.compare_exchange_strong(zero, zero, std::memory_order_acq_rel);
}

// Those that were made before anything was recorded.
void tell_children(Thread &me, const ForkPage &page) noexcept {
    for (const std::atomic<std::int32_t> &child : page.children) {
        const std::int32_t pid = child.load(std::memory_order_relaxed);
        if (pid > 0) write_note(me, {.kind = wire::RecordKind::child, .a = static_cast<std::uint64_t>(pid)});
    }
}

bool attach(Thread &me, ForkPage &page) noexcept {
    const wire::SignalsBlocked no_signals;
    std::uint32_t nobody = 0;
    for (int waited = 0; !page.attaching.compare_exchange_strong(nobody, 1, std::memory_order_acquire); nobody = 0) {
        if (page.image.load(std::memory_order_acquire) != 0) return true;
        if (process.failed.load(std::memory_order_acquire)) return false;
        wire::raw_syscall(SYS_sched_yield);
        if (++waited == kPatience) break;
    }
    if (!open_spool()) {
        if (out_of_descriptors()) {
            process.unopened.fetch_add(1, std::memory_order_relaxed);
        } else {
            process.failed.store(true, std::memory_order_release);
        }
        page.attaching.store(0, std::memory_order_release);
        return false;
    }
    if (const std::uint32_t lost = process.unopened.exchange(0, std::memory_order_relaxed); lost != 0) {
        process.spool.count_drop(wire::Drop::no_descriptor, lost);
    }
    is_zero_and_writable(descriptor_pages[0]);
    const std::uint32_t parent_image = process.identity.process;  // of the process that forked us
    process.identity.pid =
        me.speaks_for != 0 ? me.speaks_for : static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
    process.identity.process = process.spool.header().next_process.fetch_add(1, std::memory_order_relaxed);
    note_pid_namespace();
    wire::note_recorder(process.spool.header(), process.identity.pid);
    join(me, process.identity.process);
    introduce_self(me, parent_image);
    tell_children(me, page);
    page.image.store(process.identity.process, std::memory_order_release);
    return true;
}

}  // namespace

bool open_spool(Missing missing) noexcept {
    read_settings();
    if (!settings.enabled || process.failed.load(std::memory_order_acquire)) return false;
    if (process.spool.is_open()) return true;
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr) page = make_fork_page();
    if (page == nullptr) return false;
    const wire::SignalsBlocked no_signals;
    for (int waited = 0; page->opening.exchange(1, std::memory_order_acquire) != 0 && waited < kPatience; ++waited) {
        wire::raw_syscall(SYS_sched_yield);
    }
    if (process.spool.is_open()) {
        page->opening.store(0, std::memory_order_release);
        return true;
    }
    const bool make = missing == Missing::is_made;
    const auto open_file = [make] {
        return process.spool.open(settings.spool_folder, wire::kDefaultLimitBytes, settings.ring_bytes, make);
    };
    int result = open_file();
    if (result == -ENOENT && make && make_spool_folder()) result = open_file();
    process.open_error.store(result, std::memory_order_relaxed);
    constexpr std::uint64_t kTrustTscTicks = 100;  // 25 to 50 ns
    constexpr std::uint64_t kTrustNs = 40;
    process.trust_ticks = process.spool.clock() == wire::ClockKind::tsc ? kTrustTscTicks : kTrustNs;
    if (result == 0) shares_about.store(&process.spool.header().shares_about, std::memory_order_release);
    page->opening.store(0, std::memory_order_release);
    return result == 0;
}

bool in_vfork_child(Thread &me) noexcept {
    if (const std::int32_t own = process.own_pid.load(std::memory_order_acquire); own != 0) {
        const ForkPage *page = process.page.load(std::memory_order_acquire);
        if (page->image.load(std::memory_order_acquire) != 0) return wire::raw_syscall(SYS_getpid) != own;
        process.own_pid.store(0, std::memory_order_relaxed);  // a forked child is no stranger in its own memory
        me.vfork_parent = 0;
    }
    if (me.vfork_parent == 0) return false;
    if (wire::raw_syscall(SYS_getpid) != me.vfork_parent) return true;
    me.vfork_parent = 0;  // the parent goes on only after its child has left our memory
    if (const std::int32_t child = me.vfork_child; child != 0) {
        me.vfork_child = 0;
        note_spawned(me, child);
    }
    return false;
}

bool enter_slowly(Thread &me) noexcept {
    if (settings.sealed) process.spool.count_drop(wire::Drop::sandboxed);
    if (!may_record() || process.failed.load(std::memory_order_acquire) || in_vfork_child(me)) return false;
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr) page = make_fork_page();
    if (page == nullptr) {
        process.failed.store(true, std::memory_order_release);
        return false;
    }
    if (is_zero_and_writable(page->image)) {
        if (out_of_descriptors() && !worth_another_try()) {
            process.unopened.fetch_add(1, std::memory_order_relaxed);
            return false;
        }
        if (!attach(me, *page)) return false;
    }
    const std::uint32_t image = page->image.load(std::memory_order_acquire);
    if (me.image != image) {
        const wire::SignalsBlocked no_signals;
        join(me, image);
    }
    return true;
}

bool attached(Thread &me) noexcept {
    const ForkPage *page = process.page.load(std::memory_order_acquire);
    return page != nullptr && page->image.load(std::memory_order_acquire) != 0 && !in_vfork_child(me);
}

wire::Record *write_note(Thread &me, const Note &note) noexcept {
    if (process.spool.is_ring()) introduce_in_chunk(me);
    wire::Record *record = me.stream.claim(process.spool, me.who(process));
    if (record == nullptr) return nullptr;
    record->kind = note.kind;
    record->family = note.family;
    record->fd = note.fd;
    record->file = note.file;
    record->description = note.description;
    record->a = note.a;
    record->b = note.b;
    record->begin = process.spool.ticks();
    me.stream.publish(record, wire::State::complete);
    return record;
}

void announce_sharing(std::int32_t pid) noexcept {
    wire::SpoolHeader &header = process.spool.header();
    const std::uint32_t place = header.next_sharing.fetch_add(1, std::memory_order_relaxed);
    header.sharing[place % wire::kSharingPids].store(pid, std::memory_order_release);
}

}  // namespace planloop::shim
