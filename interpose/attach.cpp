#include "interpose/attach.h"

#include <linux/mman.h>
#include <sys/mman.h>

#include <cerrno>

#include "interpose/descriptors.h"
#include "interpose/inherited.h"
#include "interpose/introduction.h"
#include "interpose/ring.h"
#include "interpose/settings.h"

namespace planloop::shim {

Process process;
thread_local Thread thread;

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
    me.pending = nullptr;
    me.ring_chunk = 0;
    me.trusted_fd = -1;
    me.image = image;
}

bool attach(Thread &me, ForkPage &page) noexcept {
    const wire::SignalsBlocked no_signals;
    std::uint32_t nobody = 0;
    if (!page.attaching.compare_exchange_strong(nobody, 1, std::memory_order_acquire)) {
        while (page.image.load(std::memory_order_acquire) == 0 && !process.failed.load(std::memory_order_acquire)) {
            wire::raw_syscall(SYS_sched_yield);
        }
        return !process.failed.load(std::memory_order_acquire);
    }
    if (!open_spool()) {
        process.failed.store(true, std::memory_order_release);
        return false;
    }
    const std::uint32_t parent_image = process.identity.process;  // of the process that forked us
    process.identity.pid =
        me.speaks_for != 0 ? me.speaks_for : static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
    process.identity.process = process.spool.header().next_process.fetch_add(1, std::memory_order_relaxed);
    join(me, process.identity.process);
    introduce_self(me, parent_image);
    page.image.store(process.identity.process, std::memory_order_release);
    return true;
}

}  // namespace

bool open_spool() noexcept {
    read_settings();
    if (!settings.enabled || process.failed.load(std::memory_order_acquire)) return false;
    if (process.spool.is_open()) return true;
    ForkPage *page = process.page.load(std::memory_order_acquire);
    if (page == nullptr) page = make_fork_page();
    if (page == nullptr) return false;
    const wire::SignalsBlocked no_signals;
    while (page->opening.exchange(1, std::memory_order_acquire) != 0) wire::raw_syscall(SYS_sched_yield);
    if (process.spool.is_open()) {
        page->opening.store(0, std::memory_order_release);
        return true;
    }
    const auto open_file = [] {
        return process.spool.open(settings.spool_folder, wire::kDefaultLimitBytes, settings.ring_bytes);
    };
    int result = open_file();
    if (result == -ENOENT && make_spool_folder()) result = open_file();
    constexpr std::uint64_t kTrustTscTicks = 100;  // 25 to 50 ns
    constexpr std::uint64_t kTrustNs = 40;
    process.trust_ticks = process.spool.clock() == wire::ClockKind::tsc ? kTrustTscTicks : kTrustNs;
    if (result == 0) shares_about.store(&process.spool.header().shares_about, std::memory_order_release);
    page->opening.store(0, std::memory_order_release);
    return result == 0;
}

bool in_vfork_child(Thread &me) noexcept {
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
    if (page->image.load(std::memory_order_acquire) == 0 && !attach(me, *page)) return false;
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
