// StreamCursor of spool_reader.h: one stream of a spool through a small window.
#include <algorithm>
#include <cstring>
#include <utility>

#include "lockcore/spool_reader.h"
#include "lockcore/spool_slot.h"

namespace planloop {
namespace {

// While following, how far behind an empty slot a committed one is looked for. A thread claims its slots in order, so
// only signal handlers come in between.
constexpr std::uint32_t kLookAheadSlots = 64;
constexpr std::size_t kMostFollowedSlots = kLookAheadSlots;  // in a window then: a poll mostly finds little

// All windows together stay near this, whatever the number of streams.
constexpr std::size_t kWindowBudgetBytes = std::size_t{8} << 20;

std::uint32_t window_size(std::size_t streams, bool following) {
    const std::size_t share = kWindowBudgetBytes / std::max<std::size_t>(streams, 1) / wire::kSlotBytes;
    const std::size_t most = following ? kMostFollowedSlots : 1024;
    return static_cast<std::uint32_t>(std::clamp<std::size_t>(share, 8, most) * wire::kSlotBytes);
}

bool makes_sense(const RawSlot &slot) {
    return slot.kind > static_cast<std::uint8_t>(wire::RecordKind::none) &&
           slot.kind <= static_cast<std::uint8_t>(wire::RecordKind::last) &&
           slot.kind != static_cast<std::uint8_t>(wire::RecordKind::text) && slot.family < wire::kFamilyCount &&
           slot.mode <= static_cast<std::uint8_t>(wire::Mode::exclusive);
}

void decode(const RawSlot &raw, wire::State state, const SpoolChunk &chunk, std::uint32_t stream, std::uint32_t slot,
            SpoolRecord &record) {
    record.state = state;
    record.commit = raw.commit;
    record.kind = static_cast<wire::RecordKind>(raw.kind);
    record.family = static_cast<wire::Family>(raw.family);
    record.mode = static_cast<wire::Mode>(raw.mode);
    record.flags = raw.flags;
    record.clock = chunk.clock;
    record.process = chunk.process;
    record.stream = stream;
    record.pid = chunk.pid;
    record.tid = chunk.tid;
    record.slot = chunk.offset / wire::kSlotBytes + slot;
    record.begin = raw.begin;
    record.end = raw.end;
    record.error = raw.error;
    record.fd = raw.fd;
    record.file = raw.file;
    record.description = raw.description;
    record.a = raw.a;
    record.b = raw.b;
    record.caller = raw.caller;
    record.payload.clear();
}

bool anything_committed(const unsigned char *slots, std::size_t bytes) {
    for (std::size_t at = 0; at + wire::kSlotBytes <= bytes; at += wire::kSlotBytes) {
        std::uint32_t commit = 0;
        std::memcpy(&commit, slots + at, sizeof(commit));
        if (commit != 0) return true;
    }
    return false;
}

}  // namespace

// The bytes of a slot, or nullptr when the file ends before its last one.
const unsigned char *StreamCursor::slot_at(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot) {
    const std::uint64_t offset = chunk.offset + std::uint64_t{slot} * wire::kSlotBytes;
    if (window_ != nullptr && window_poll_ == reader.polls() && offset >= window_begin_ &&
        offset + wire::kSlotBytes <= window_begin_ + window_used_) {
        return window_.get() + (offset - window_begin_);
    }
    if (window_ == nullptr) {
        window_bytes_ = window_size(reader.streams().size(), reader.following());
        window_ = std::make_unique_for_overwrite<unsigned char[]>(window_bytes_);
    }
    const std::uint64_t left = chunk.offset + chunk.bytes - offset;
    const auto want = static_cast<std::size_t>(std::min<std::uint64_t>(left, window_bytes_));
    window_begin_ = offset;
    window_poll_ = reader.polls();
    std::size_t got = read_window(reader, want);
    if (reader.ring_bytes() != 0 && !reader.still_there(chunk, reader.streams()[stream_].id)) {
        gone_ = true;
        got = 0;
    }
    window_used_ = static_cast<std::uint32_t>(got);
    return got >= wire::kSlotBytes ? window_.get() : nullptr;
}

// While following: a copy made while a record was being written may hold its commit word and yet older fields, so the
// fields come from a second copy, made after the commit words were seen. A look mostly finds slots that nobody used.
std::size_t StreamCursor::read_window(SpoolReader &reader, std::size_t bytes) {
    const std::size_t got = reader.read_at(window_begin_, window_.get(), bytes);
    if (!reader.following() || !anything_committed(window_.get(), got)) return got;
    if (reader.scratch_ == nullptr)
        reader.scratch_ = std::make_unique_for_overwrite<unsigned char[]>(kMostFollowedSlots * wire::kSlotBytes);
    unsigned char *const second = reader.scratch_.get();
    const std::size_t again =
        reader.read_at(window_begin_, second, std::min(got, kMostFollowedSlots * wire::kSlotBytes));
    for (std::size_t at = 0; at + wire::kSlotBytes <= again; at += wire::kSlotBytes) {
        constexpr std::size_t kCommitBytes = sizeof(RawSlot::commit);
        std::memcpy(window_.get() + at + kCommitBytes, second + at + kCommitBytes, wire::kSlotBytes - kCommitBytes);
    }
    return again;
}

// Moves slot_ to the next committed slot of the chunk. What is stepped over was claimed but not committed: torn, unless
// it still comes.
StreamCursor::Found StreamCursor::find_committed(SpoolReader &reader, const SpoolChunk &chunk, bool last_chunk) {
    const auto slots = static_cast<std::uint32_t>(chunk.bytes / wire::kSlotBytes);
    const bool wait = reader.following() && last_chunk;
    const std::uint32_t patience = wait ? kLookAheadSlots : slots;  // empty slots in a row
    bool text_only = false;
    std::uint32_t empty = 0;
    for (std::uint32_t slot = slot_; slot < slots && empty < patience; ++slot) {
        const unsigned char *bytes = slot_at(reader, chunk, slot);
        if (bytes == nullptr) break;
        RawSlot raw;
        std::memcpy(&raw, bytes, sizeof(raw));
        if (commit_of(raw, chunk.salt) == wire::State::empty) {
            ++empty;
            continue;
        }
        empty = 0;
        if (slot > slot_ && wait) {
            text_only = raw.kind == static_cast<std::uint8_t>(wire::RecordKind::text);
            if (text_only) continue;
            const std::uint64_t here = chunk.offset / wire::kSlotBytes + slot_;
            if (stalled_slot_ != here || stalled_poll_ == reader.polls()) {
                if (stalled_slot_ != here) stalled_poll_ = reader.polls();
                stalled_slot_ = here;
                return Found::not_yet;
            }
        }
        for (; slot_ < slot; ++slot_) pass(reader, chunk, slot_);
        return Found::committed;
    }
    if (text_only) return Found::not_yet;
    return gone_ ? Found::overwritten : Found::nothing;
}

// Whether a look at the next slots alone shows that there is nothing more. A thread that writes claims its slots in
// order; what a signal handler wrote behind a gap of many slots is found by the full look, some looks later.
bool StreamCursor::still_caught_up(const SpoolReader &reader, const SpoolChunk &chunk) const {
    constexpr std::uint64_t kFullLook = 8;  // one look in so many
    constexpr std::uint32_t kSlots = 2;
    const bool was = caught_up_at_ != 0 && caught_up_at_ + 1 == reader.polls();
    if (!was || !reader.following() || reader.ring_bytes() != 0 || (reader.polls() + stream_) % kFullLook == 0)
        return false;
    unsigned char slots[kSlots * wire::kSlotBytes];
    const std::size_t want = std::min<std::size_t>(kSlots, chunk.bytes / wire::kSlotBytes - slot_) * wire::kSlotBytes;
    const std::uint64_t offset = chunk.offset + std::uint64_t{slot_} * wire::kSlotBytes;
    return reader.read_at(offset, slots, want) == want && !anything_committed(slots, want);
}

// Steps over a slot; text in it belongs to a record that is still to come.
void StreamCursor::pass(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot) {
    constexpr std::size_t kMostPassed = 32;
    RawSlot raw{};
    if (const unsigned char *bytes = slot_at(reader, chunk, slot)) std::memcpy(&raw, bytes, sizeof(raw));
    if (commit_of(raw, chunk.salt) != wire::State::empty) return;
    ++reader.damage_.torn;
    if (!reader.following()) return;
    if (passed_.size() == kMostPassed) passed_.erase(passed_.begin());
    passed_.push_back({chunk, slot});
}

// A record in a slot that was passed and has been committed since.
bool StreamCursor::take_passed(SpoolReader &reader, SpoolRecord &record) {
    if (passed_.empty() || passed_poll_ == reader.polls()) return false;
    for (auto at = passed_.begin(); at != passed_.end(); ++at) {
        const std::uint64_t offset = at->chunk.offset + std::uint64_t{at->slot} * wire::kSlotBytes;
        RawSlot raw{};
        if (reader.read_at(offset, &raw, sizeof(raw)) != sizeof(raw)) continue;
        if (commit_of(raw, at->chunk.salt) == wire::State::empty) continue;
        const Passed found = *at;
        passed_.erase(at);
        --reader.damage_.torn;
        // The window goes there and back.
        const std::uint32_t here = std::exchange(slot_, found.slot + 1);
        const bool gone = gone_;
        give_back_window();
        const bool sound = finish_record(reader, found.chunk, found.slot, record);
        give_back_window();
        slot_ = here;
        gone_ = gone;
        return sound || take_passed(reader, record);
    }
    passed_poll_ = reader.polls();
    return false;
}

// Whether a chunk with this number may yet show up. Its owner writes the header right after the claim, unless it died
// in between.
bool StreamCursor::still_to_come(std::uint32_t sequence) {
    constexpr std::chrono::milliseconds kPatience{500};
    const auto now = std::chrono::steady_clock::now();
    if (missing_ != sequence || missing_until_ == std::chrono::steady_clock::time_point{}) {
        missing_ = sequence;
        missing_until_ = now + kPatience;
    }
    return now < missing_until_;
}

const SpoolChunk *StreamCursor::present(const SpoolStream &stream) {
    const auto is_it = [this](const SpoolChunk &chunk) {
        return chunk.sequence == sequence_ && chunk.offset == chunk_offset_;
    };
    if (place_ < stream.chunks.size() && is_it(stream.chunks[place_])) return &stream.chunks[place_];
    const auto found = std::find_if(stream.chunks.begin(), stream.chunks.end(), is_it);
    if (found == stream.chunks.end()) return nullptr;
    place_ = static_cast<std::size_t>(found - stream.chunks.begin());
    return &*found;
}

// What comes behind the present chunk; at the start, the first one.
const SpoolChunk *StreamCursor::following(const SpoolStream &stream) const {
    if (!begun_) return stream.chunks.empty() ? nullptr : stream.chunks.data();
    SpoolChunk here;
    here.sequence = sequence_;
    here.offset = chunk_offset_;
    const auto found = std::upper_bound(stream.chunks.begin(), stream.chunks.end(), here);
    return found == stream.chunks.end() ? nullptr : &*found;
}

// Goes to the following chunk; false: there is none that may be read yet.
bool StreamCursor::move_on(SpoolReader &reader, const SpoolStream &stream) {
    const SpoolChunk *next = following(stream);
    if (next == nullptr) return false;
    const std::uint32_t expected = begun_ ? sequence_ + 1 : 0;
    if (next->sequence != expected) {
        // The first chunks of a ring that was joined late are not waited for.
        const bool overwritten = !begun_ && reader.overwritten();
        if (reader.following() && !overwritten && still_to_come(expected)) return false;
        if (reader.ring_bytes() != 0) reader.overwritten_ = true;
    }
    begun_ = true;
    sequence_ = next->sequence;
    chunk_offset_ = next->offset;
    place_ = static_cast<std::size_t>(next - stream.chunks.data());
    slot_ = 1;
    gone_ = false;
    return true;
}

bool StreamCursor::is_last(const SpoolReader &reader, const SpoolStream &stream) {
    const SpoolChunk *next = place_ + 1 < stream.chunks.size() ? &stream.chunks[place_ + 1] : nullptr;
    if (next == nullptr) return true;
    return reader.following() && next->sequence > sequence_ + 1 && still_to_come(sequence_ + 1);
}

void StreamCursor::give_back_window() {
    window_.reset();  // also so that the next look is a fresh one
    window_used_ = 0;
}

// The short way for what most slots of a finished spool are: committed, without text, and in the window already. False:
// nothing is decided yet.
bool StreamCursor::take_from_window(const SpoolReader &reader, const SpoolStream &stream, SpoolRecord &record) {
    if (reader.following() || window_poll_ != reader.polls() || place_ >= stream.chunks.size()) return false;
    const SpoolChunk &chunk = stream.chunks[place_];
    if (chunk.sequence != sequence_ || chunk.offset != chunk_offset_) return false;
    const std::uint64_t in_chunk = std::uint64_t{slot_} * wire::kSlotBytes;
    const std::uint64_t in_window = chunk.offset + in_chunk - window_begin_;  // before it: a very large number
    if (in_chunk + wire::kSlotBytes > chunk.bytes || in_window >= window_used_ ||
        window_used_ - in_window < wire::kSlotBytes)
        return false;
    RawSlot raw;
    std::memcpy(&raw, window_.get() + in_window, sizeof(raw));
    const wire::State state = commit_of(raw, chunk.salt);
    if (state == wire::State::empty || !makes_sense(raw) || has_text(static_cast<wire::RecordKind>(raw.kind)))
        return false;
    decode(raw, state, chunk, stream.id, slot_++, record);
    // Other streams' records come in between, so by the time it is needed it would be far away.
    __builtin_prefetch(window_.get() + in_window + wire::kSlotBytes);
    return true;
}

bool StreamCursor::next(SpoolReader &reader, SpoolRecord &record) {
    const SpoolStream &stream = reader.streams()[stream_];
    if (take_from_window(reader, stream, record)) return true;
    for (;;) {
        const SpoolChunk *chunk = begun_ ? present(stream) : nullptr;
        const bool last_chunk = chunk != nullptr && is_last(reader, stream);
        Found found = Found::overwritten;
        if (chunk != nullptr) {
            const bool nothing = last_chunk && still_caught_up(reader, *chunk);
            found = nothing ? Found::nothing : find_committed(reader, *chunk, last_chunk);
        }
        if (found == Found::overwritten && begun_ && (chunk != nullptr || caught_up_at_ + 1 < reader.polls())) {
            reader.overwritten_ = true;
        }
        if (found == Found::overwritten || (found == Found::nothing && !last_chunk)) {
            if (move_on(reader, stream)) continue;
        }
        if (found != Found::committed) {
            give_back_window();
            if (found == Found::nothing) caught_up_at_ = reader.polls();
            return take_passed(reader, record);
        }
        if (finish_record(reader, *chunk, slot_++, record)) return true;
    }
}

// Makes a record of the committed slot in front of slot_, and of the text behind it; false: it is none.
bool StreamCursor::finish_record(SpoolReader &reader, const SpoolChunk &chunk, std::uint32_t slot,
                                 SpoolRecord &record) {
    const unsigned char *bytes = slot_at(reader, chunk, slot);
    if (bytes == nullptr) return false;  // of a ring, and overwritten since
    RawSlot raw;
    std::memcpy(&raw, bytes, sizeof(raw));
    if (raw.kind == static_cast<std::uint8_t>(wire::RecordKind::text)) return false;  // its record was torn
    if (!makes_sense(raw)) {
        ++reader.damage_.damaged;
        return false;
    }
    decode(raw, commit_of(raw, chunk.salt), chunk, reader.streams()[stream_].id, slot, record);
    if (has_text(record.kind)) read_payload(reader, chunk, record.end, record.payload);
    return true;
}

// Text slots stand directly behind their record, in its chunk, numbered from 0.
void StreamCursor::read_payload(SpoolReader &reader, const SpoolChunk &chunk, std::uint64_t bytes,
                                std::string &payload) {
    const auto slots = static_cast<std::uint32_t>(chunk.bytes / wire::kSlotBytes);
    std::uint32_t index = 0;
    while (payload.size() < bytes && slot_ < slots) {
        const unsigned char *at = slot_at(reader, chunk, slot_);
        if (at == nullptr) break;
        RawSlot raw;
        std::memcpy(&raw, at, sizeof(raw));
        const std::uint32_t number = std::uint32_t{raw.family} | std::uint32_t{raw.mode} << 8;
        if (commit_of(raw, chunk.salt) != wire::State::complete ||
            raw.kind != static_cast<std::uint8_t>(wire::RecordKind::text) || number != index) {
            break;
        }
        const std::size_t used = std::min<std::size_t>(raw.flags, wire::kTextBytes);
        payload.append(reinterpret_cast<const char *>(at) + offsetof(wire::TextSlot, bytes), used);
        ++index;
        ++slot_;
    }
    if (payload.size() < bytes) ++reader.damage_.cut_text;
    if (payload.size() > bytes) payload.resize(static_cast<std::size_t>(bytes));
}

}  // namespace planloop
