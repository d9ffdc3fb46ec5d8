// A fixture: spool files made by hand, byte by byte, so that a test can state exactly what was recorded and when,
// without the shim. Mirrors wire/spool_format.h; the writer proper is wire/spool_writer.h.
//
//     SpoolFixture spool;
//     auto &main = spool.chunk({.process = 1, .stream = 1, .pid = 100, .tid = 100});
//     main.process("flock /tmp/a true").file(1, "/tmp/a");
//     main.acquire({.begin = 1000, .end = 2000, .file = 1});
//     spool.write(path);
//
// Ticks are nanoseconds of the monotonic clock unless the fixture is made with ClockKind::tsc. A spool starts at
// tick 0, which is kEpochNs in UTC.
#ifndef PLANLOOP_TESTS_SUPPORT_SPOOL_FIXTURE_H
#define PLANLOOP_TESTS_SUPPORT_SPOOL_FIXTURE_H

#include <cstdint>
#include <cstring>
#include <deque>
#include <fstream>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/wire/spool_format.h"

namespace planloop::test {

inline constexpr std::uint64_t kEpochNs = 1'800'000'000'000'000'000;  // 2027-01-15T08:00:00Z

// One record's fields; what is left out is 0, a fd -1 and the state complete.
struct RecordSpec {
    wire::RecordKind kind = wire::RecordKind::acquire;
    wire::State state = wire::State::complete;
    wire::Family family = wire::Family::flock;
    wire::Mode mode = wire::Mode::exclusive;
    std::uint8_t flags = wire::kBlocking;
    std::uint64_t begin = 0, end = 0;
    std::int32_t error = 0, fd = -1;
    std::uint32_t file = 0, description = 0;
    std::uint64_t a = 0, b = 0, caller = 0;
};

struct ChunkSpec {
    std::uint32_t process = 1, stream = 1, sequence = 0;
    std::int32_t pid = 100, tid = 100;
    std::uint32_t bytes = wire::kPageBytes;
    wire::ClockKind clock = wire::ClockKind::monotonic;
    wire::Calibration claimed{};
};

class ChunkFixture {
  public:
    explicit ChunkFixture(const ChunkSpec &spec) : spec_(spec) {}

    // Each adds the next slot and tells its number in the chunk, the header being 0.
    std::size_t record(const RecordSpec &spec) {
        slots_.push_back({spec, {}});
        return slots_.size();
    }
    std::size_t acquire(RecordSpec spec) {
        spec.kind = wire::RecordKind::acquire;
        return record(spec);
    }
    std::size_t pending(RecordSpec spec) {
        spec.state = wire::State::pending;
        return record(spec);
    }
    std::size_t release(RecordSpec spec) {
        spec.kind = wire::RecordKind::release;
        spec.mode = wire::Mode::none;
        return record(spec);
    }
    std::size_t torn() { return record({.state = wire::State::empty}); }  // claimed, never committed

    // A record with its payload in text slots behind it.
    std::size_t with_payload(RecordSpec spec, std::string_view payload) {
        spec.end = payload.size();
        const std::size_t slot = record(spec);
        for (std::size_t i = 0; i * wire::kTextBytes < payload.size(); ++i) {
            slots_.push_back({spec, std::string(payload.substr(i * wire::kTextBytes, wire::kTextBytes))});
            slots_.back().text_index = i;
        }
        return slot;
    }
    ChunkFixture &process(std::string_view command_line, wire::ProcessBody body = {}, std::uint64_t begin = 0,
                          std::string_view trace_id = "tr_20270115080000_abcdef", std::string_view executable = "",
                          std::string_view operation = "") {
        if (body.pid == 0) body.pid = spec_.pid;
        std::string payload(reinterpret_cast<const char *>(&body), sizeof(body));
        for (const std::string_view text : {command_line, executable, std::string_view("/"), trace_id, operation}) {
            payload += text;
            payload += '\0';
        }
        with_payload({.kind = wire::RecordKind::process, .begin = begin}, payload);
        return *this;
    }
    ChunkFixture &file(std::uint32_t id, std::string_view path, std::uint64_t inode = 0, std::uint64_t begin = 0,
                       std::uint64_t device = 0xfe01, std::uint64_t generation = 0) {
        const wire::FileBody body{id, 0100644, device, inode != 0 ? inode : 1000 + id, generation};
        std::string payload(reinterpret_cast<const char *>(&body), sizeof(body));
        payload += path;
        payload += '\0';
        with_payload({.kind = wire::RecordKind::file, .begin = begin, .file = id}, payload);
        return *this;
    }

  private:
    friend class SpoolFixture;
    struct Slot {
        RecordSpec spec;
        std::string text;
        std::size_t text_index = 0;
    };
    ChunkSpec spec_;
    std::vector<Slot> slots_;
};

class SpoolFixture {
  public:
    explicit SpoolFixture(wire::ClockKind clock = wire::ClockKind::monotonic,
                          wire::Calibration created = {0, 0, kEpochNs})
        : clock_(clock), created_(created) {}

    // The next chunk of the file; the reference stays good.
    ChunkFixture &chunk(const ChunkSpec &spec = {}) { return chunks_.emplace_back(spec); }
    void drop(std::uint64_t events, wire::Drop why = wire::Drop::no_space) {
        dropped_[static_cast<std::size_t>(why)] += events;
    }
    void boot(const std::uint8_t (&id)[16]) { std::memcpy(boot_id_, id, sizeof(boot_id_)); }

    std::string bytes() const {
        std::uint64_t size = wire::kPageBytes;
        for (const ChunkFixture &chunk : chunks_) size += chunk.spec_.bytes;
        std::string out(size, '\0');
        put_header(out, size);
        std::uint64_t offset = wire::kPageBytes;
        for (const ChunkFixture &chunk : chunks_) {
            put_chunk(out, chunk, offset);
            offset += chunk.spec_.bytes;
        }
        return out;
    }
    void write(const std::string &path) const { write_bytes(path, bytes()); }
    static void write_bytes(const std::string &path, std::string_view bytes) {
        std::ofstream(path, std::ios::binary | std::ios::trunc)
            .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    }

    // Stores a value in bytes that a test then damages.
    template <class T>
    static void poke(std::string &bytes, std::uint64_t offset, const T &value) {
        std::memcpy(bytes.data() + offset, &value, sizeof(value));
    }

  private:
    void put_header(std::string &out, std::uint64_t size) const {
        std::memcpy(out.data(), wire::kSpoolMagic, sizeof(wire::kSpoolMagic));
        poke(out, offsetof(wire::SpoolHeader, version), wire::kFormatVersion);
        poke(out, offsetof(wire::SpoolHeader, endian), wire::kEndianMark);
        poke(out, offsetof(wire::SpoolHeader, boot_id), boot_id_);
        poke(out, offsetof(wire::SpoolHeader, clock), clock_);
        poke(out, offsetof(wire::SpoolHeader, created), created_);
        poke(out, offsetof(wire::SpoolHeader, limit_bytes), wire::kDefaultLimitBytes);
        poke(out, offsetof(wire::SpoolHeader, next_offset), size);
        poke(out, offsetof(wire::SpoolHeader, reserved_bytes), size);
        poke(out, offsetof(wire::SpoolHeader, dropped), dropped_);
    }
    static void put_chunk(std::string &out, const ChunkFixture &chunk, std::uint64_t offset) {
        const ChunkSpec &spec = chunk.spec_;
        const wire::ChunkHeader header{wire::kChunkMagic,
                                       static_cast<std::uint16_t>(wire::kFormatVersion),
                                       static_cast<std::uint16_t>(spec.clock),
                                       offset,
                                       spec.bytes,
                                       spec.process,
                                       spec.stream,
                                       spec.sequence,
                                       spec.pid,
                                       spec.tid,
                                       spec.claimed};
        poke(out, offset, header);
        std::uint64_t at = offset;
        for (const ChunkFixture::Slot &slot : chunk.slots_) {
            at += wire::kSlotBytes;
            put_slot(out, slot, at,
                     wire::commit_word(wire::chunk_salt(offset, spec.stream, spec.sequence), slot.spec.state));
        }
    }
    static void put_slot(std::string &out, const ChunkFixture::Slot &slot, std::uint64_t at, std::uint32_t commit) {
        const RecordSpec &spec = slot.spec;
        if (spec.state != wire::State::empty) poke(out, at, commit);
        if (!slot.text.empty()) {
            poke(out, at + offsetof(wire::TextSlot, kind), wire::RecordKind::text);
            poke(out, at + offsetof(wire::TextSlot, index_low), static_cast<std::uint8_t>(slot.text_index));
            poke(out, at + offsetof(wire::TextSlot, index_high), static_cast<std::uint8_t>(slot.text_index >> 8));
            poke(out, at + offsetof(wire::TextSlot, used), static_cast<std::uint8_t>(slot.text.size()));
            std::memcpy(out.data() + at + offsetof(wire::TextSlot, bytes), slot.text.data(), slot.text.size());
            return;
        }
        poke(out, at + offsetof(wire::Record, kind), spec.kind);
        poke(out, at + offsetof(wire::Record, family), spec.family);
        poke(out, at + offsetof(wire::Record, mode), spec.mode);
        poke(out, at + offsetof(wire::Record, flags), spec.flags);
        poke(out, at + offsetof(wire::Record, begin), spec.begin);
        poke(out, at + offsetof(wire::Record, end), spec.end);
        poke(out, at + offsetof(wire::Record, error), spec.error);
        poke(out, at + offsetof(wire::Record, fd), spec.fd);
        poke(out, at + offsetof(wire::Record, file), spec.file);
        poke(out, at + offsetof(wire::Record, description), spec.description);
        poke(out, at + offsetof(wire::Record, a), spec.a);
        poke(out, at + offsetof(wire::Record, b), spec.b);
        poke(out, at + offsetof(wire::Record, caller), spec.caller);
    }

    wire::ClockKind clock_;
    wire::Calibration created_;
    std::uint8_t boot_id_[16] = {};
    std::uint64_t dropped_[static_cast<std::size_t>(wire::Drop::count)] = {};
    std::deque<ChunkFixture> chunks_;
};

}  // namespace planloop::test

#endif
