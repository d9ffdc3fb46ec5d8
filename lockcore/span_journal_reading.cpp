#include <errno.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/record_files.h"
#include "lockcore/span_journal.h"
#include "lockcore/span_journal_layout.h"
#include "lockcore/trace_id.h"

namespace planloop {
namespace {

using namespace journal;

constexpr std::uint32_t kRecentSlots = 32;
constexpr std::size_t kMostAround = 64;

template <std::size_t size>
std::string text_in(const char (&from)[size]) {
    return {from, ::strnlen(from, size)};
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
