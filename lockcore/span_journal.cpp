#include "lockcore/span_journal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <new>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/process_status.h"
#include "lockcore/record_files.h"
#include "lockcore/trace_id.h"
#include "lockcore/wire/ticks.h"

namespace planloop {

struct JournalHeader {
    char magic[8];
    std::uint32_t version;
    std::int32_t pid;
    std::uint64_t process_start;  // of /proc/PID/stat, clock ticks after boot
    std::uint8_t boot[16];
    std::int64_t begin_utc_ns, begin_monotonic_ns;
    char trace_id[kLongestTraceId + 8];
    char operation[72];
    char session_id[kLongestSessionId + 8];
    char process[32];
    char command[2048];  // arguments with a NUL behind each, then another
    std::atomic<std::uint32_t> finished;
    std::atomic<std::uint32_t> next;      // slots claimed
    std::atomic<std::uint32_t> reserved;  // slots that may be touched
    std::atomic<std::uint32_t> locks;
    std::atomic<std::uint64_t> dropped, lock_wait_ns, lock_hold_ns;
};

struct SpanSlot {
    std::atomic<std::uint32_t> commit;
    std::uint32_t parent;  // of a text slot: its span
    std::int64_t begin_ns;
    std::atomic<std::int64_t> end_ns;
    std::int32_t tid, pid;
    std::atomic<std::uint8_t> status;
    std::uint8_t name_bytes;
    char name[26];
};

namespace {

struct TextSlot {
    std::atomic<std::uint32_t> commit;
    std::uint32_t span;
    std::uint16_t bytes;
    std::uint8_t kind;
    std::uint8_t last;  // of one text
    char text[52];
};

constexpr char kMagic[8] = {'P', 'L', 'S', 'P', 'A', 'N', 'S', '1'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kHeaderBytes = 4096;
constexpr std::uint32_t kFirstSlots = 192;  // with the header 16 KiB
constexpr std::size_t kSlotBytes = 64;
constexpr std::size_t kMapBytes = kHeaderBytes + std::size_t{SpanJournal::kMostSlots} * kSlotBytes;
constexpr std::uint32_t kRecentSlots = 32;
constexpr std::size_t kMostAround = 64;
constexpr std::size_t kMostTextBytes = std::size_t{4} << 10;

static_assert(sizeof(JournalHeader) <= kHeaderBytes);
static_assert(sizeof(SpanSlot) == kSlotBytes && sizeof(TextSlot) == kSlotBytes);
static_assert(std::atomic<std::int64_t>::is_always_lock_free && std::atomic<std::uint8_t>::is_always_lock_free);

// Different in each slot, so that stray bytes are not taken for one.
std::uint32_t commit_word(std::uint32_t slot, bool is_text) {
    return (slot * 2 + (is_text ? 1 : 0)) ^ 0x5eed5ba2U;
}

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
template <std::size_t size>
std::string text_in(const char (&from)[size]) {
    return {from, ::strnlen(from, size)};
}

// Clock ticks after boot; 0: no such process.
std::uint64_t start_of_process(std::int32_t pid) {
    return process_status(pid).value_or(ProcessStatus()).start_time;
}

bool may_grow_to(std::size_t bytes) {
    rlimit limit{};
    return ::getrlimit(RLIMIT_FSIZE, &limit) != 0 || bytes <= limit.rlim_cur;
}

std::size_t bytes_for(std::uint32_t slots) {
    return kHeaderBytes + std::size_t{slots} * kSlotBytes;
}

// A journal, wherever it lies, as what it says.
class Reading {
  public:
    Reading(const JournalHeader &header, const SpanSlot *slots, std::uint32_t count)
        : header_(header), slots_(slots), count_(count) {}

    // Of slots `first` to `count`, and of what `span` lies in.
    std::vector<SpanRecord> recent(std::uint32_t first, std::uint32_t span) {
        std::vector<std::uint32_t> around;
        while (span != SpanJournal::kNone && span <= count_ && around.size() < kMostAround) {
            if (span <= first) around.push_back(span - 1);
            span = slots_[span - 1].parent < span ? slots_[span - 1].parent : SpanJournal::kNone;
        }
        for (std::size_t i = around.size(); i-- > 0;) read_slot(around[i]);
        for (std::uint32_t i = first; i < count_; ++i) read_slot(i);
        return std::move(record_.spans);
    }

    OperationRecord run() {
        record_.trace_id = text_in(header_.trace_id);
        record_.operation = text_in(header_.operation);
        record_.session_id = text_in(header_.session_id);
        record_.process = text_in(header_.process);
        record_.pid = header_.pid;
        record_.begin_utc_ns = record_.last_utc_ns = header_.begin_utc_ns;
        record_.lock_wait_ns = header_.lock_wait_ns.load(std::memory_order_relaxed);
        record_.lock_hold_ns = header_.lock_hold_ns.load(std::memory_order_relaxed);
        record_.locks = header_.locks.load(std::memory_order_relaxed);
        record_.dropped = header_.dropped.load(std::memory_order_relaxed);
        record_.finished = header_.finished.load(std::memory_order_acquire) != 0;
        read_command();
        for (std::uint32_t i = 0; i < count_; ++i) read_slot(i);
        if (record_.spans.empty()) {  // died before its first: the operation itself is always one
            SpanRecord root;
            root.name = record_.operation;
            root.id = 1;
            root.pid = root.tid = record_.pid;
            root.begin_utc_ns = record_.begin_utc_ns;
            record_.spans.push_back(std::move(root));
        }
        for (SpanRecord &span : record_.spans) {
            if (id_to_place_.count(span.parent) == 0) span.parent = SpanJournal::kNone;
        }
        return std::move(record_);
    }

  private:
    void read_command() {
        const std::string_view all(header_.command, sizeof(header_.command));
        for (std::size_t at = 0; at < all.size() && all[at] != '\0';) {
            const std::size_t end = all.find('\0', at);
            if (end == std::string_view::npos) break;
            record_.command.emplace_back(all.substr(at, end - at));
            at = end + 1;
        }
    }
    std::int64_t utc(std::int64_t monotonic) const {
        std::int64_t since = 0;
        std::int64_t result = 0;
        if (__builtin_sub_overflow(monotonic, header_.begin_monotonic_ns, &since) ||
            __builtin_add_overflow(header_.begin_utc_ns, since, &result)) {
            return header_.begin_utc_ns;
        }
        return std::max(result, header_.begin_utc_ns);
    }
    void read_slot(std::uint32_t i) {
        const std::uint32_t commit = slots_[i].commit.load(std::memory_order_acquire);
        if (commit == commit_word(i, false)) {
            read_span(i);
        } else if (commit == commit_word(i, true)) {
            read_text(reinterpret_cast<const TextSlot &>(slots_[i]));
        }
    }
    void read_span(std::uint32_t i) {
        const SpanSlot &slot = slots_[i];
        SpanRecord span;
        span.id = i + 1;
        span.parent = slot.parent < span.id ? slot.parent : SpanJournal::kNone;
        span.pid = slot.pid;
        span.tid = slot.tid;
        span.name.assign(slot.name, std::min<std::size_t>(slot.name_bytes, sizeof(slot.name)));
        span.begin_utc_ns = utc(slot.begin_ns);
        const std::int64_t end = slot.end_ns.load(std::memory_order_acquire);
        if (end != 0) {
            span.end_utc_ns = std::max(utc(end), span.begin_utc_ns);
            const std::uint8_t status = slot.status.load(std::memory_order_relaxed);
            span.status = status == static_cast<std::uint8_t>(SpanStatus::error) ? SpanStatus::error : SpanStatus::ok;
        }
        record_.last_utc_ns = std::max({record_.last_utc_ns, span.begin_utc_ns, span.end_utc_ns});
        id_to_place_[span.id] = record_.spans.size();
        record_.spans.push_back(std::move(span));
    }
    void read_text(const TextSlot &slot) {
        const auto place = id_to_place_.find(slot.span);
        if (place == id_to_place_.end()) return;
        SpanRecord &span = record_.spans[place->second];
        const std::string_view piece(slot.text, std::min<std::size_t>(slot.bytes, sizeof(slot.text)));
        switch (static_cast<SpanText>(slot.kind)) {
            case SpanText::name:
                span.name += piece;
                break;
            case SpanText::metadata:
                // A text that is broken off would spoil the rest of the object.
                metadata_ += piece;
                if (slot.last == 0) return;
                if (!span.metadata.empty()) span.metadata += ',';
                span.metadata += metadata_;
                metadata_.clear();
                break;
            case SpanText::error:
                span.error += piece;
                break;
        }
    }

    const JournalHeader &header_;
    const SpanSlot *slots_;
    std::uint32_t count_;
    OperationRecord record_;
    std::map<std::uint32_t, std::size_t> id_to_place_;
    std::string metadata_;
};

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

OperationRecord SpanJournal::read() const {
    return Reading(*header_, slots_, slots_in_use()).run();
}

std::vector<SpanRecord> SpanJournal::recent(std::uint32_t span) const {
    const std::uint32_t count = slots_in_use();
    return Reading(*header_, slots_, count).recent(count - std::min(count, kRecentSlots), span);
}

Result<OperationRecord> SpanJournal::read_file(const std::string &path) {
    auto content = read_record(path, kMapBytes);
    if (!content) return content.error();
    const auto refuse = [&](std::string_view why) { return Error{fmt::format("{}: {}", printable(path), why)}; };
    if (content->size() < kHeaderBytes) return refuse("too short for a span journal");
    // Copied, since a string's bytes are aligned for nothing.
    std::vector<SpanSlot> room((content->size() + kSlotBytes - 1) / kSlotBytes);
    static_assert(kHeaderBytes % kSlotBytes == 0);
    std::memcpy(static_cast<void *>(room.data()), content->data(), content->size());
    const auto &header = *reinterpret_cast<const JournalHeader *>(room.data());
    if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) return refuse("no span journal");
    if (header.version != kVersion) return refuse("a span journal of another version");
    if (!valid_trace_id(text_in(header.trace_id))) return refuse("a span journal without a trace id");
    const std::size_t count = (content->size() - kHeaderBytes) / kSlotBytes;
    return Reading(header, room.data() + kHeaderBytes / kSlotBytes,
                   static_cast<std::uint32_t>(std::min<std::size_t>(count, kMostSlots)))
        .run();
}

bool SpanJournal::is_abandoned(const std::string &path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return false;
    JournalHeader header{};
    const ssize_t got = ::pread(fd, static_cast<void *>(&header), sizeof(header), 0);
    struct stat status {};
    const bool known = ::fstat(fd, &status) == 0;
    ::close(fd);
    if (got != static_cast<ssize_t>(sizeof(header)) || std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) {
        // Killed while it was made: nothing is in it. One that is being made now is younger.
        constexpr std::int64_t kOldNs = std::int64_t{60} * 1'000'000'000;
        const std::int64_t changed = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
        return known && utc_now_ns() - changed > kOldNs;
    }
    const BootId boot = boot_id();
    if (!std::equal(boot.begin(), boot.end(), header.boot)) return true;
    return start_of_process(header.pid) != header.process_start;
}

}  // namespace planloop
