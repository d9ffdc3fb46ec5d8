#include "analysis/source/event_log.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <optional>

#include "lockcore/clock.h"
#include "lockcore/lock_id.h"
#include "lockcore/session.h"

namespace planloop::analysis {

struct LogFields : EventLine {
    std::int64_t utc_ns = 0;
    EventKind kind{};
};

namespace {

// Events put into order at a time; some two megabytes.
constexpr std::size_t kReorder = std::size_t{1} << 14;
constexpr char kSessionLock[] = "session";  // what the Python planloop's lock lines are about

std::int64_t wait_of(const EventLine &line) {
    if (line.wait_ns > 0) return line.wait_ns;
    return line.wait_ms > 0 && line.wait_ms < 9e12 ? static_cast<std::int64_t>(line.wait_ms * 1e6) : 0;
}

std::optional<EventKind> kind_named(std::string_view name) {
    if (name == "lock_requested") return EventKind::lock_requested;
    if (name == "lock_acquired") return EventKind::lock_acquired;
    if (name == "lock_released") return EventKind::lock_released;
    if (name == "lock_failed") return EventKind::lock_failed;
    return std::nullopt;
}

// FNV-1a: entries need no table, so a line's memory ends with the line.
std::uint64_t hash_of(std::string_view text) {
    std::uint64_t hash = 0xcbf29ce484222325U;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3U;
    return hash;
}

// The spool that a line was exported from, if the exporter wrote it as ours does: nothing between its tokens. Quotes
// inside a text are escaped, so what is found here are fields. Saves parsing what is not wanted.
std::optional<std::string_view> exported_from(std::string_view line) {
    constexpr std::string_view kSource = R"(,"source":")";
    constexpr std::string_view kSpool = R"(,"spool":")";
    const std::size_t source = line.find(kSource);
    if (source == std::string_view::npos) return std::nullopt;
    const std::size_t spool = line.find(kSpool, source);
    if (spool == std::string_view::npos) return std::nullopt;
    line.remove_prefix(spool + kSpool.size());
    const std::size_t end = line.find_first_of("\"\\");
    if (end == std::string_view::npos || line[end] != '"') return std::nullopt;
    return line.substr(0, end);
}

std::int32_t small(std::int64_t number) {
    return number < 0 || number > std::numeric_limits<std::int32_t>::max() ? 0 : static_cast<std::int32_t>(number);
}

}  // namespace

LogEvents::LogEvents(LineReader reader, std::string path, EventTables &tables, SpoolIsRead spool_is_read,
                     bool following, std::int64_t hold_back_ns)
    : reader_(std::move(reader)),
      path_(std::move(path)),
      parser_(std::make_unique<EventLineParser>()),
      tables_(tables),
      spool_is_read_(std::move(spool_is_read)),
      following_(following),
      hold_back_ns_(hold_back_ns),
      horizon_ns_(following ? utc_now_ns() - hold_back_ns : std::numeric_limits<std::int64_t>::max()) {}

void LogEvents::poll(bool settled) {
    at_end_ = false;
    following_ = !settled;
    horizon_ns_ = settled ? std::numeric_limits<std::int64_t>::max() : utc_now_ns() - hold_back_ns_;
}

bool LogEvents::next(Event &event) {
    while (heap_.size() < kReorder && !at_end_) {
        if (!read_one()) at_end_ = true;
    }
    if (heap_.empty() || heap_.front().event.t_ns > horizon_ns_) return false;
    std::pop_heap(heap_.begin(), heap_.end(), std::greater<>());
    event = heap_.back().event;
    heap_.pop_back();
    return true;
}

bool LogEvents::read_one() {
    std::string_view line;
    if (reader_.next(line)) {
        take_line(line);
        return true;
    }
    // A file that was written by hand may lack its last newline; one that is being written will get it.
    if (following_ || !reader_.take_unterminated(line)) return false;
    const std::uint64_t broken = broken_;
    take_line(line);
    torn_ += broken_ - broken;
    broken_ = broken;
    return true;
}

void LogEvents::take_line(std::string_view line) {
    while (!line.empty() && (line.back() == '\r' || line.back() == ' ')) line.remove_suffix(1);
    if (line.empty()) return;
    if (line.front() != '{' || line.back() != '}') {
        ++broken_;
        return;
    }
    // Most lines are about other things, and parsing is dear.
    if (line.find("\"lock_") == std::string_view::npos) return;
    if (const auto spool = exported_from(line); spool && spool_is_read_(std::string{*spool})) return;
    LogFields fields;
    switch (parse(line, fields)) {
        case Parsed::event:
            take_fields(fields);
            break;
        case Parsed::other:
            break;
        case Parsed::broken:
            ++broken_;
            break;
    }
}

LogEvents::Parsed LogEvents::parse(std::string_view line, LogFields &fields) {
    if (!parser_->parse(line, fields)) return Parsed::broken;
    const auto kind = kind_named(fields.event);
    if (!kind) return Parsed::other;
    const auto utc_ns = parse_utc(fields.timestamp);
    if (!utc_ns) return Parsed::broken;
    fields.kind = *kind;
    fields.utc_ns = *utc_ns;
    if (fields.source == "preload" && spool_is_read_(std::string{fields.spool})) return Parsed::other;
    fields.wait_ns = wait_of(fields);
    return Parsed::event;
}

// Programs append lines as things happen, so one whose line is much older than its line before tells that the clock was
// set back. What follows is moved behind all that came before: an order that is true, at times that are not. Lines that
// were exported from a spool have the times of a clock that does not step.
std::int64_t LogEvents::time_of(const LogFields &fields) {
    constexpr std::int64_t kStepNs = 10'000'000'000;  // below, it may be a line that was late to be written
    if (!fields.spool.empty()) return fields.utc_ns;
    if (fields.pid != 0) {
        Writer &writer = writers_.try_emplace(fields.pid, Writer{fields.utc_ns, steps_}).first->second;
        if (fields.utc_ns < writer.last_ns - kStepNs && writer.steps == steps_) {
            ++steps_;
            shift_ns_ = latest_ns_ + 1 - fields.utc_ns;
        }
        writer = {fields.utc_ns, steps_};
    }
    latest_ns_ = std::max(latest_ns_, fields.utc_ns + shift_ns_);
    return fields.utc_ns + shift_ns_;
}

void LogEvents::take_fields(const LogFields &fields) {
    Event event;
    event.t_ns = time_of(fields);
    event.kind = fields.kind;
    event.mode = fields.mode == "shared" ? wire::Mode::shared : wire::Mode::exclusive;
    event.process = process_number(fields);
    event.thread = thread_number(fields);
    event.pid = small(fields.pid);
    event.tid = small(fields.tid);
    event.file = lock_number(fields);
    event.family = family_named(fields.family).value_or(wire::Family::named_mutex);
    event.start = fields.start;
    event.len = fields.len;
    ++order_;
    const std::uint64_t entry = fields.entry.empty() ? order_ : hash_of(fields.entry);
    event.entry = std::uint64_t{kLogPart} << kEntryShift | (entry & ((std::uint64_t{1} << kEntryShift) - 1));
    if (fields.kind == EventKind::lock_requested) event.flags = wire::kBlocking;
    if (fields.kind == EventKind::lock_acquired || fields.kind == EventKind::lock_failed) {
        event.duration_ns = fields.wait_ns;
    }
    if (fields.kind == EventKind::lock_failed) event.error = small(fields.error);
    heap_.push_back({event, order_});
    std::push_heap(heap_.begin(), heap_.end(), std::greater<>());
}

std::uint32_t LogEvents::process_number(const LogFields &fields) {
    // An instrumented program has one operation for each trace; a pid without a trace id tells no more.
    std::string key = fmt::format("{}\n{}\n{}\n{}", fields.pid, fields.trace_id, fields.operation, fields.process);
    const auto [found, added] = processes_.try_emplace(
        std::move(key), part_number(kLogPart, static_cast<std::uint32_t>(processes_.size()) + 1));
    if (added) {
        ProcessInfo info;
        info.pid = small(fields.pid);
        info.hearsay = true;
        info.command_line = info.name = fields.process;
        info.trace_id = fields.trace_id;
        info.operation = fields.operation.empty() ? fields.process : fields.operation;
        tables_.processes[found->second] = std::move(info);
    }
    return found->second;
}

std::uint32_t LogEvents::thread_number(const LogFields &fields) {
    std::string key = fmt::format("{}\n{}", fields.pid, fields.tid);
    if (fields.tid == 0) {
        key += '\n';
        key += fields.trace_id;
    }
    const auto [found, added] =
        threads_.try_emplace(std::move(key), part_number(kLogPart, static_cast<std::uint32_t>(threads_.size()) + 1));
    return found->second;
}

std::uint32_t LogEvents::lock_number(const LogFields &fields) {
    const std::string id(fields.lock_id.empty() ? fields.path : fields.lock_id);
    const auto [found, added] = locks_.try_emplace(
        id.empty() ? kSessionLock : id, part_number(kLogPart, static_cast<std::uint32_t>(locks_.size()) + 1));
    if (added) {
        FileInfo info;
        info.path = fields.path;
        if (const auto file = parse_lock_id(found->first)) {
            info.device = file->device;
            info.inode = file->inode;
        } else {
            info.lock_id = found->first;
        }
        tables_.files[found->second] = std::move(info);
    }
    return found->second;
}

void LogEvents::add_notes(SourceNotes &notes) const {
    const auto tell = [&](std::uint64_t count, std::string_view what) {
        if (count != 0) notes.messages.push_back(fmt::format("{}: {} {}", printable(path_), count, what));
    };
    tell(broken_, "lines that are no valid JSON events were skipped");
    tell(torn_, "line was cut off at the end and is skipped");
    tell(steps_, "times the clock was set back: what was logged after that is shown later than it says");
    tell(reader_.oversized(), "lines were too long and are skipped");
}

}  // namespace planloop::analysis
