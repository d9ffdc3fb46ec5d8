#include "lockcore/span_journal.h"

#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/span_journal_layout.h"
#include "lockcore/trace_id.h"
#include "lockcore/wire/ticks.h"

namespace planloop {
namespace {

using namespace journal;

constexpr std::uint32_t kFirstSlots = 192;  // with the header 16 KiB
constexpr std::size_t kMostTextBytes = std::size_t{4} << 10;

std::int64_t monotonic_ns() {
    return static_cast<std::int64_t>(wire::clock_ns(CLOCK_MONOTONIC));
}

struct ThreadIds {
    std::int32_t pid, tid;
};
constinit thread_local ThreadIds ids_of_thread{};

const ThreadIds &thread_ids() noexcept {
    if (__builtin_expect(ids_of_thread.tid == 0, 0)) {
        static const int forgotten_by_children = pthread_atfork(nullptr, nullptr, [] { ids_of_thread = {}; });
        static_cast<void>(forgotten_by_children);
        ids_of_thread = {::getpid(), ::gettid()};
    }
    return ids_of_thread;
}

template <std::size_t size>
void copy_text(char (&to)[size], std::string_view from) {
    to[from.copy(to, size - 1)] = '\0';
}

bool may_grow_to(std::size_t bytes) {
    rlimit limit{};
    return ::getrlimit(RLIMIT_FSIZE, &limit) != 0 || bytes <= limit.rlim_cur;
}

std::size_t bytes_for(std::uint32_t slots) {
    return kHeaderBytes + std::size_t{slots} * kSlotBytes;
}

}  // namespace

std::shared_ptr<SpanJournal> SpanJournal::create(const std::string &directory, const OperationRecord &operation) {
    struct Access : SpanJournal {};
    auto journal = std::make_shared<Access>();
    if (!directory.empty() && may_grow_to(bytes_for(kFirstSlots))) {
        static std::atomic<std::uint32_t> count{0};
        journal->path_ = fmt::format("{}/{}.{}.{}", directory, operation.trace_id, ::getpid(),
                                     count.fetch_add(1, std::memory_order_relaxed));
        ::unlink(journal->path_.c_str());
        journal->fd_ = ::open(journal->path_.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (journal->fd_ >= 0 && ::fallocate(journal->fd_, 0, 0, static_cast<off_t>(bytes_for(kFirstSlots))) != 0) {
            journal->remove();
        }
    }
    const bool in_file = journal->fd_ >= 0;
    void *place =
        ::mmap(nullptr, kMapBytes, PROT_READ | PROT_WRITE,
               in_file ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, in_file ? journal->fd_ : -1, 0);
    if (place == MAP_FAILED) {
        journal->remove();
        return nullptr;
    }
    auto *header = new (place) JournalHeader{};
    journal->header_ = header;
    journal->slots_ = reinterpret_cast<SpanSlot *>(static_cast<char *>(place) + kHeaderBytes);
    header->version = kVersion;
    header->pid = ::getpid();
    header->process_start = in_file ? start_of_process(header->pid) : 0;
    const BootId boot = boot_id();
    std::copy(boot.begin(), boot.end(), header->boot);
    header->begin_monotonic_ns = monotonic_ns();
    header->begin_utc_ns = utc_now_ns();
    copy_text(header->trace_id, operation.trace_id);
    copy_text(header->operation, operation.operation);
    copy_text(header->session_id, operation.session_id);
    copy_text(header->process, operation.process);
    std::size_t at = 0;
    for (const std::string &word : operation.command) {
        if (word.empty() || at + word.size() + 2 > sizeof(header->command)) continue;
        std::memcpy(header->command + at, word.c_str(), word.size() + 1);
        at += word.size() + 1;
    }
    header->reserved.store(in_file ? kFirstSlots : kMostSlots, std::memory_order_relaxed);
    std::memcpy(header->magic, kMagic, sizeof(kMagic));
    return journal;
}

SpanJournal::~SpanJournal() {
    if (header_ != nullptr) ::munmap(header_, kMapBytes);
    if (fd_ >= 0) ::close(fd_);
}

void SpanJournal::remove() noexcept {
    if (header_ != nullptr) header_->finished.store(1, std::memory_order_release);
    if (fd_ < 0) return;
    ::unlink(path_.c_str());
    ::close(std::exchange(fd_, -1));
}

bool SpanJournal::grow(std::uint32_t slots) noexcept {
    if (slots > kMostSlots || fd_ < 0) return false;
    const int error = errno;
    std::uint32_t wanted = kFirstSlots;
    while (wanted < slots) wanted *= 2;
    wanted = std::min(wanted, kMostSlots);
    const bool grown =
        may_grow_to(bytes_for(wanted)) && ::fallocate(fd_, 0, 0, static_cast<off_t>(bytes_for(wanted))) == 0;
    if (grown) {
        std::uint32_t known = header_->reserved.load(std::memory_order_relaxed);
        while (known < wanted && !header_->reserved.compare_exchange_weak(known, wanted, std::memory_order_release)) {
        }
    }
    errno = error;
    return grown;
}

SpanSlot *SpanJournal::claim(std::uint32_t slots, std::uint32_t &first) noexcept {
    if (__builtin_expect(header_->next.load(std::memory_order_relaxed) < kMostSlots, 1)) {
        first = header_->next.fetch_add(slots, std::memory_order_relaxed);
        const std::uint32_t end = first + slots;
        if (__builtin_expect(end <= header_->reserved.load(std::memory_order_acquire), 1) || grow(end)) {
            return slots_ + first;
        }
    }
    header_->dropped.fetch_add(1, std::memory_order_relaxed);
    return nullptr;
}

std::uint32_t SpanJournal::begin(std::string_view name, std::uint32_t parent) noexcept {
    std::uint32_t place = 0;
    SpanSlot *slot = claim(1, place);
    if (slot == nullptr) return kNone;
    const ThreadIds &ids = thread_ids();
    slot->parent = parent;
    slot->tid = ids.tid;
    slot->pid = ids.pid;
    const std::size_t inline_bytes = std::min(name.size(), sizeof(slot->name));
    slot->name_bytes = static_cast<std::uint8_t>(inline_bytes);
    std::memcpy(slot->name, name.data(), inline_bytes);
    slot->begin_ns = monotonic_ns();
    slot->commit.store(commit_word(place, false), std::memory_order_release);
    if (__builtin_expect(name.size() > inline_bytes, 0)) text(place + 1, SpanText::name, name.substr(inline_bytes));
    return place + 1;
}

void SpanJournal::end(std::uint32_t span, SpanStatus status) noexcept {
    if (span == kNone) return;
    SpanSlot &slot = slots_[span - 1];
    const auto failed = static_cast<std::uint8_t>(SpanStatus::error);
    if (slot.status.load(std::memory_order_relaxed) != failed) {
        slot.status.store(static_cast<std::uint8_t>(status), std::memory_order_relaxed);
    }
    slot.end_ns.store(monotonic_ns(), std::memory_order_release);
}

std::uint32_t SpanJournal::add(std::string_view name, std::uint32_t parent, std::int64_t duration_ns) noexcept {
    const std::uint32_t span = begin(name, parent);
    if (span == kNone) return span;
    SpanSlot &slot = slots_[span - 1];
    const std::int64_t now = slot.begin_ns;
    slot.begin_ns = now - std::max<std::int64_t>(duration_ns, 0);
    slot.status.store(static_cast<std::uint8_t>(SpanStatus::ok), std::memory_order_relaxed);
    slot.end_ns.store(now, std::memory_order_release);
    return span;
}

void SpanJournal::fail(std::uint32_t span) noexcept {
    if (span != kNone) {
        slots_[span - 1].status.store(static_cast<std::uint8_t>(SpanStatus::error), std::memory_order_relaxed);
    }
}

void SpanJournal::text(std::uint32_t span, SpanText kind, std::string_view text) noexcept {
    if (span == kNone || text.empty() || text.size() > kMostTextBytes) return;
    constexpr std::size_t kPiece = sizeof(TextSlot::text);
    const auto count = static_cast<std::uint32_t>((text.size() + kPiece - 1) / kPiece);
    std::uint32_t place = 0;
    SpanSlot *slots = claim(count, place);
    if (slots == nullptr) return;
    for (std::uint32_t i = 0; i < count; ++i) {
        const std::string_view piece = text.substr(i * kPiece, kPiece);
        auto *slot = reinterpret_cast<TextSlot *>(slots + i);
        slot->span = span;
        slot->kind = static_cast<std::uint8_t>(kind);
        slot->bytes = static_cast<std::uint16_t>(piece.size());
        slot->last = i + 1 == count ? 1 : 0;
        std::memcpy(slot->text, piece.data(), piece.size());
        slot->commit.store(commit_word(place + i, true), std::memory_order_release);
    }
}

void SpanJournal::count_lock(std::int64_t wait_ns, std::int64_t hold_ns) noexcept {
    if (wait_ns >= 0) {
        header_->locks.fetch_add(1, std::memory_order_relaxed);
        header_->lock_wait_ns.fetch_add(static_cast<std::uint64_t>(wait_ns), std::memory_order_relaxed);
    }
    if (hold_ns >= 0) header_->lock_hold_ns.fetch_add(static_cast<std::uint64_t>(hold_ns), std::memory_order_relaxed);
}

std::uint32_t SpanJournal::slots_in_use() const noexcept {
    return std::min(
        {header_->next.load(std::memory_order_acquire), header_->reserved.load(std::memory_order_acquire), kMostSlots});
}

}  // namespace planloop
