#include "analysis/source/event_spool.h"

#include <algorithm>
#include <cerrno>
#include <functional>

namespace planloop::analysis {
namespace {

using wire::RecordKind;
using wire::State;

// Calls of one thread that are inside each other. Only a damaged file has more.
constexpr std::size_t kMostNested = 64;
constexpr std::size_t kMostPending = std::size_t{1} << 16;

bool came_back(State state) {
    return state == State::complete || state == State::abandoned;
}

EventKind kind_of(RecordKind kind) {
    switch (kind) {
        case RecordKind::release:
            return EventKind::lock_released;
        case RecordKind::close:
            return EventKind::descriptor_closed;
        case RecordKind::duplicate:
            return EventKind::descriptor_duplicated;
        case RecordKind::fork:
            return EventKind::process_forked;
        case RecordKind::exec:
            return EventKind::process_exec;
        case RecordKind::exit:
            return EventKind::process_exiting;
        case RecordKind::process:
            return EventKind::process_started;
        case RecordKind::sharer:
            return EventKind::sharer_seen;
        case RecordKind::ended:
            return EventKind::process_ended;
        case RecordKind::wait_child:
            return EventKind::child_wait_begun;
        case RecordKind::not_traced:
            return EventKind::not_traced;
        case RecordKind::child:
            return EventKind::child_made;
        default:
            return EventKind::lock_requested;
    }
}

}  // namespace

SpoolEvents::SpoolEvents(std::unique_ptr<SpoolReader> reader, std::uint32_t part, EventTables &tables,
                         Following following)
    : reader_(std::move(reader)), part_(part), tables_(tables), following_(following) {
    reader_->set_following(following_.on);
    set_horizon();
    add_streams();
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
}

SpoolEvents::~SpoolEvents() = default;

// An entry for each new stream, at a time before which it has no record.
void SpoolEvents::add_streams() {
    const auto &streams = reader_->streams();
    for (std::size_t i = streams_.size(); i < streams.size(); ++i) {
        streams_.emplace_back();
        heap_.emplace_back(reader_->clock().to_spool_ticks(streams[i].first_clock, streams[i].first_ticks), 0,
                           static_cast<std::uint32_t>(i));
        if (following_.on && !streams[i].chunks.empty())
            streaming_[streams[i].chunks.front().pid].push_back(static_cast<std::uint32_t>(i));
    }
}

// A stamp is made a moment before its record can be seen, and another thread's later one may be seen first. What is
// older than now by more than that moment is complete.
void SpoolEvents::set_horizon() {
    horizon_.reset();
    if (!following_.on || !reader_->of_this_boot()) return;
    const SpoolClock &clock = reader_->clock();
    const auto now = clock.spool_ticks_now();
    if (!now) return;
    const std::uint64_t hold_back = clock.ticks_in(following_.hold_back_ns);
    horizon_ = *now > hold_back ? *now - hold_back : 0;
}

std::int64_t SpoolEvents::now_ns() const {
    if (!reader_->of_this_boot()) return 0;
    const auto now = reader_->clock().spool_ticks_now();
    return now ? reader_->clock().utc_ns(*now) : 0;
}

// The horizon is set first: what is stamped before it and concerns what others do was published before it, so whatever
// is found by the looks below is held back unless all that led to it is found as well.
std::pair<std::uint64_t, std::uint64_t> SpoolEvents::position() const {
    std::uint64_t bytes = 0;
    for (const SpoolStream &stream : reader_->streams())
        for (const SpoolChunk &chunk : stream.chunks) bytes += chunk.bytes;
    return {records_, bytes / wire::kSlotBytes};
}

void SpoolEvents::poll(bool settled) {
    reader_->set_following(!settled);
    set_horizon();
    reader_->poll();
    recheck_pending();
    rebuild_heap();
}

void SpoolEvents::recheck_pending() {
    std::erase_if(pending_, [this](PendingCall &call) {
        if (!reader_->reread(call.record)) return streams_[call.stream].over;
        if (came_back(call.record.state)) finish_call(call.stream, call.record, call.event);
        return true;
    });
}

// A supervisor saw a process end: its streams are read to their ends at the next look, and not asked again. Those of
// another process that got the number since began later. Who was only not found may be in a pid namespace that the
// supervisor does not see into, unless it said that it exits.
void SpoolEvents::end_streams(const SpoolRecord &ended) {
    const auto found = streaming_.find(static_cast<std::int32_t>(ended.a));
    if (found == streaming_.end()) return;
    const SpoolClock &clock = reader_->clock();
    std::erase_if(found->second, [&](std::uint32_t index) {
        const SpoolStream &stream = reader_->streams()[index];
        if (clock.to_spool_ticks(stream.first_clock, stream.first_ticks) > key_of(ended, ended.begin)) return false;
        streams_[index].over = streams_[index].exiting || static_cast<std::int64_t>(ended.b) != wire::kGoneUnwatched;
        return streams_[index].over;
    });
    if (found->second.empty()) streaming_.erase(found);
}

void SpoolEvents::rebuild_heap() {
    heap_.clear();
    const auto known = static_cast<std::uint32_t>(streams_.size());
    for (std::uint32_t i = 0; i < known; ++i) {
        if (streams_[i].open == nullptr && !streams_[i].done) {  // not reached yet
            const SpoolStream &stream = reader_->streams()[i];
            heap_.emplace_back(reader_->clock().to_spool_ticks(stream.first_clock, stream.first_ticks), 0, i);
            continue;
        }
        Entry entry;
        if (advance(i, entry)) {
            heap_.push_back(entry);
        } else if (streams_[i].over) {
            close_stream(streams_[i]);
        }
    }
    add_streams();
    std::make_heap(heap_.begin(), heap_.end(), std::greater<>());
}

void SpoolEvents::read_head(std::uint32_t index, OpenStream &open) {
    const SpoolRecord &head = open.head;
    while (!open.has_head && open.cursor.next(*reader_, open.head)) {
        ++records_;
        if (head.state == State::annulled || (has_text(head.kind) && !learn(open))) continue;
        if (reader_->ring_bytes() != 0 && head.file != 0 && tables_.files.count(number(head.file)) == 0) {
            continue;  // what it was about has been overwritten
        }
        open.has_head = true;
        open.head_key = std::max(key_of(head, head.begin), streams_[index].last_key);
        open.head_rank = static_cast<std::uint32_t>(event_rank(kind_of(head.kind)));
    }
}

// Where an end and a begin have the same time, the end is of the earlier record.
bool SpoolEvents::OpenStream::ending_is_next() const {
    if (endings.empty()) return false;
    return !has_head || endings.back().key <= head_key || endings.size() > kMostNested;
}

// Finds what comes next in a stream; false: nothing for now.
bool SpoolEvents::advance(std::uint32_t index, Entry &entry) {
    Stream &stream = streams_[index];
    if (stream.open == nullptr && !open_stream(index)) return false;
    OpenStream &open = *stream.open;
    if (!open.has_head) read_head(index, open);
    if (open.ending_is_next()) {
        const Ending &ending = open.endings.back();
        entry = {std::max(ending.key, stream.last_key), static_cast<std::uint32_t>(event_rank(ending.event.kind)),
                 index};
        return true;
    }
    if (open.has_head) {
        entry = {open.head_key, open.head_rank, index};
        return true;
    }
    if (!following_.on) close_stream(stream);
    return false;
}

// Not in line: advance() is for each event.
[[gnu::noinline]] bool SpoolEvents::open_stream(std::uint32_t index) {
    if (streams_[index].done) return false;
    streams_[index].open = std::make_unique<OpenStream>(index);
    return true;
}

[[gnu::noinline]] void SpoolEvents::close_stream(Stream &stream) {
    stream.open.reset();
    stream.done = true;
}

bool SpoolEvents::next(Event &event) {
    while (!heap_.empty()) {
        const Entry top = heap_.front();
        if (horizon_ && top.key > *horizon_) return false;
        const std::uint32_t index = top.stream();
        Stream &stream = streams_[index];
        Entry following_entry;
        if (stream.open == nullptr) {  // reached: now its first record can be read
            if (advance(index, following_entry)) {
                replace_top(following_entry);
            } else {
                remove_top();
            }
            continue;
        }
        OpenStream &open = *stream.open;
        stream.last_key = std::max(stream.last_key, top.key);
        if (open.ending_is_next()) {
            event = open.endings.back().event;
            open.endings.pop_back();
            open.head_key = std::max(open.head_key, stream.last_key);
        } else if (taken_back(open.head)) {
            open.has_head = false;
            if (advance(index, following_entry)) {
                replace_top(following_entry);
            } else {
                remove_top();
            }
            continue;
        } else {
            take_head(index, event);
        }
        event.t_ns = reader_->clock().utc_ns(top.key);
        if (advance(index, following_entry)) {
            replace_top(following_entry);
        } else {
            remove_top();
        }
        return true;
    }
    return false;
}

void SpoolEvents::replace_top(const Entry &entry) {
    std::size_t hole = 0;
    const std::size_t size = heap_.size();
    for (std::size_t child = 1; child < size; child = 2 * hole + 1) {
        if (child + 1 < size && heap_[child] > heap_[child + 1]) ++child;
        if (!(entry > heap_[child])) break;
        heap_[hole] = heap_[child];
        hole = child;
    }
    heap_[hole] = entry;
}

void SpoolEvents::remove_top() {
    const Entry last = heap_.back();
    heap_.pop_back();
    if (!heap_.empty()) replace_top(last);
}

// Looks once more at a record that is old enough to be told, when it may have changed since it was read: what is
// stamped ahead of its call may be taken back, and a call that was under way may be over. What such a call led to is
// told from here on; one that is under way still comes back behind the horizon, so recheck_pending() is in time for it.
bool SpoolEvents::taken_back(SpoolRecord &head) const {
    const bool stamped_ahead =
        head.kind == RecordKind::release || head.kind == RecordKind::close || head.kind == RecordKind::exec;
    const bool may_change = stamped_ahead || head.state == State::pending;
    return following_.on && may_change && reader_->reread(head) && head.state == State::annulled;
}

// Makes the event of a record's begin, and sees to that of its end.
void SpoolEvents::take_head(std::uint32_t index, Event &event) {
    OpenStream &open = *streams_[index].open;
    const SpoolRecord &record = open.head;
    open.has_head = false;
    describe(record, event);
    event.speaker = open.speaker;
    switch (record.kind) {
        case RecordKind::process:
            images_[record.pid].push_back(event.process);
            break;
        case RecordKind::not_traced:
            event.file = learn_program(record);
            break;
        case RecordKind::sharer:
            event.speaker = learn_sharer(record);
            break;
        case RecordKind::exit:
            if (const auto own = streaming_.find(record.pid); own != streaming_.end())
                for (const std::uint32_t stream : own->second) streams_[stream].exiting = true;
            break;
        case RecordKind::ended:
            end_streams(record);
            break;
        case RecordKind::acquire:
        case RecordKind::wait_child:
            if (came_back(record.state)) {
                finish_call(index, record, event);
            } else if (following_.on && pending_.size() < kMostPending) {
                pending_.push_back({index, record, event});
            }
            break;
        default:
            break;
    }
}

void SpoolEvents::describe(const SpoolRecord &record, Event &event) const {
    event = Event{};
    event.kind = kind_of(record.kind);
    event.family = record.family;
    event.mode = record.mode;
    event.flags = record.flags;
    event.process = number(record.process);
    event.thread = number(record.stream);
    event.pid = record.pid;
    event.tid = record.tid;
    event.fd = record.fd;
    event.file = number(record.file);
    event.description = number(record.description);
    event.caller = record.caller;
    event.site = tables_.sites.find(event.process, record.caller);
    event.entry = std::uint64_t{part_} << kEntryShift | record.slot;
    switch (record.kind) {
        case RecordKind::release:
            event.error = record.error;
            [[fallthrough]];
        case RecordKind::acquire:
            event.start = record.a;
            event.len = record.b;
            break;
        case RecordKind::exit:
            event.other = static_cast<std::int64_t>(record.b);
            break;
        case RecordKind::sharer:
            event.other = static_cast<std::int64_t>(record.a);
            event.start = record.b;
            break;
        case RecordKind::ended:
            event.pid = static_cast<std::int32_t>(record.a);
            event.process = image_of(event.pid, record.end);
            event.thread = 0;
            event.tid = 0;
            event.start = record.end;
            event.other = static_cast<std::int64_t>(record.b);
            break;
        case RecordKind::not_traced:
            event.pid = static_cast<std::int32_t>(record.a);
            event.other = static_cast<std::int64_t>(record.b);
            break;
        default:
            event.other = static_cast<std::int64_t>(record.a);
            break;
    }
}

// Lines up the event of a call's end.
void SpoolEvents::finish_call(std::uint32_t index, const SpoolRecord &record, const Event &begin) {
    Stream &stream = streams_[index];
    if (stream.open == nullptr) return;
    const std::uint64_t key = std::max({key_of(record, record.begin), key_of(record, record.end)});
    std::vector<Ending> &endings = stream.open->endings;
    const auto place = std::find_if(endings.rbegin(), endings.rend(), [key](const Ending &e) { return e.key >= key; });
    Event &event = endings.insert(place.base(), {key, begin})->event;
    if (record.kind == RecordKind::wait_child) {
        event.kind = EventKind::child_wait_ended;
        event.start = record.b;
    } else if (record.state == State::complete && record.error == 0) {
        event.kind = EventKind::lock_acquired;
    } else {
        event.kind = EventKind::lock_failed;
        event.error = record.state == State::abandoned ? ECANCELED : record.error;
    }
    event.file = number(record.file);
    event.description = number(record.description);
    event.duration_ns = reader_->clock().interval_ns(record.clock, record.begin, record.end);
}

void SpoolEvents::add_notes(SourceNotes &notes) const {
    const std::uint64_t dropped = reader_->dropped();
    notes.dropped = dropped > ~notes.dropped ? ~std::uint64_t{0} : notes.dropped + dropped;
    notes.torn += reader_->damage().torn;
    notes.overwritten = notes.overwritten || reader_->overwritten();
    for (std::string &line : reader_->messages()) notes.messages.push_back(std::move(line));
}

}  // namespace planloop::analysis
