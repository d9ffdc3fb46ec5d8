#include "lockcore/spool_reader.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <limits>

#include "lockcore/process_status.h"
#include "lockcore/session.h"
#include "lockcore/spool_slot.h"

namespace planloop {
namespace {

constexpr std::uint32_t kSwappedEndianMark = 0x04030201;

// The fields of wire::SpoolHeader that are fixed at birth, as plain data.
struct HeaderStart {
    char magic[8];
    std::uint32_t version;
    std::uint32_t endian;
    std::uint8_t boot_id[16];
    std::uint32_t owner_uid;
    std::uint32_t clock;
    wire::Calibration created;
    std::uint64_t limit_bytes;
    std::uint64_t ring_bytes;
};
static_assert(offsetof(HeaderStart, ring_bytes) == offsetof(wire::SpoolHeader, ring_bytes) &&
              offsetof(HeaderStart, boot_id) == offsetof(wire::SpoolHeader, boot_id) &&
              offsetof(HeaderStart, created) == offsetof(wire::SpoolHeader, created) &&
              offsetof(HeaderStart, limit_bytes) == offsetof(wire::SpoolHeader, limit_bytes));

constexpr std::uint64_t page_up(std::uint64_t offset) {
    return (offset + wire::kPageBytes - 1) / wire::kPageBytes * wire::kPageBytes;
}

std::uint32_t salt_of(const wire::ChunkHeader &header) {
    return header.version == 1 ? wire::chunk_salt_of_version_1(header.offset)
                               : wire::chunk_salt(header.offset, header.stream, header.sequence);
}

bool all_zero(const unsigned char *bytes, std::size_t count) {
    return std::all_of(bytes, bytes + count, [](unsigned char byte) { return byte == 0; });
}

}  // namespace

SpoolReader::~SpoolReader() {
    if (fd_ >= 0) ::close(fd_);
}

Result<std::unique_ptr<SpoolReader>> SpoolReader::open(const std::string &path) {
    // O_NONBLOCK: a FIFO under this name must not stop us.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) {
        const char *why = std::strerror(errno);  // NOLINT(concurrency-mt-unsafe)
        return Error{fmt::format("{}: cannot be read: {}", printable(path), why)};
    }
    std::unique_ptr<SpoolReader> reader(new SpoolReader(fd, path));
    struct stat status {};
    if (fstat(fd, &status) != 0 || !S_ISREG(status.st_mode)) {
        return Error{fmt::format("{}: is not a file", printable(path))};
    }
    reader->read_ahead(false);
    reader->packed_ = PackedSpool::open(fd);
    if (auto header = reader->read_header(reader->file_size()); !header) return header.error();
    reader->poll();
    return reader;
}

Result<void> SpoolReader::read_header(std::uint64_t size) {
    const std::string name = printable(path_);
    if (size == 0) return Error{fmt::format("{}: is empty", name)};
    alignas(HeaderStart) unsigned char bytes[sizeof(HeaderStart)] = {};
    const std::size_t got = read_at(0, bytes, sizeof(bytes));
    HeaderStart header{};
    std::memcpy(&header, bytes, sizeof(header));
    const std::size_t magic_bytes = std::min(got, sizeof(wire::kSpoolMagic));
    if (got == 0 || std::memcmp(header.magic, wire::kSpoolMagic, magic_bytes) != 0) {
        if (adopt_first_chunk()) return {};
        return Error{fmt::format("{}: is not a spool", name)};
    }
    if (size < wire::kPageBytes) {
        return Error{fmt::format("{}: is truncated: {} bytes end inside its header", name, size)};
    }
    if (header.endian == kSwappedEndianMark) {
        return Error{fmt::format("{}: was written on a machine of the other byte order", name)};
    }
    if (header.endian != wire::kEndianMark || header.version == 0) {
        if (adopt_first_chunk()) return {};
        return Error{fmt::format("{}: its header is damaged", name)};
    }
    if (header.version > wire::kFormatVersion) {
        return Error{fmt::format("{}: was made by a newer version (format {}, this program reads up to {})", name,
                                 header.version, wire::kFormatVersion)};
    }
    for (std::size_t i = 0; i < boot_.size(); ++i) boot_[i] = header.boot_id[i];
    of_this_boot_ = boot_ != BootId{} && boot_ == boot_id();
    created_ = header.created;
    format_ = header.version;
    if (header.version > 1 && header.ring_bytes % wire::kRingChunkBytes == 0) ring_bytes_ = header.ring_bytes;
    const bool counter = header.clock == static_cast<std::uint32_t>(wire::ClockKind::tsc);
    clock_ = SpoolClock(counter ? wire::ClockKind::tsc : wire::ClockKind::monotonic, created_);
    return {};
}

// Page 0 is gone, but a chunk stands where the first one must: its header tells clock and time.
bool SpoolReader::adopt_first_chunk() {
    wire::ChunkHeader header{};
    bool found = false;
    for (const std::uint64_t offset : {std::uint64_t{wire::kPageBytes}, std::uint64_t{wire::kRingChunkBytes}}) {
        found = read_at(offset, &header, sizeof(header)) == sizeof(header) && makes_sense(header, offset);
        if (found) break;
    }
    if (!found) return false;
    created_ = header.claimed;
    const bool counter = wire::chunk_clock(header.clock) == wire::ClockKind::tsc;
    clock_ = SpoolClock(counter ? wire::ClockKind::tsc : wire::ClockKind::monotonic, created_);
    damage_.lost_header = true;
    return true;
}

// What the last supervisor or program left as it ended; nothing while there is a supervisor, or when somebody came
// after.
std::optional<wire::Calibration> SpoolReader::final_calibration() const {
    std::uint32_t supervisor = 0;
    std::uint64_t clocks[3] = {};
    static_assert(offsetof(wire::SpoolHeader, final_utc_ns) == offsetof(wire::SpoolHeader, final_ticks) + 16);
    if (format_ < 2 || damage_.lost_header) return std::nullopt;
    if (read_at(offsetof(wire::SpoolHeader, supervisor), &supervisor, sizeof(supervisor)) != sizeof(supervisor) ||
        read_at(offsetof(wire::SpoolHeader, final_ticks), clocks, sizeof(clocks)) != sizeof(clocks)) {
        return std::nullopt;
    }
    const bool supervised = supervisor != 0 && process_runs(static_cast<pid_t>(supervisor), 0);
    if (supervised || clocks[0] <= std::max<std::uint64_t>(latest_claim_, 1)) return std::nullopt;
    return wire::Calibration{clocks[0], clocks[1], clocks[2]};
}

// A recording that is over has the same times whenever it is read. Else this machine's own clocks are worth more than
// any pair in the file, but only in the boot that the spool is of.
void SpoolReader::calibrate_here() {
    if (const auto final = final_calibration()) return clock_.add(wire::ClockKind::tsc, *final, true);
    if (!of_this_boot_) return;
    if (const auto now = calibrate_now(wire::ClockKind::tsc)) clock_.add(wire::ClockKind::tsc, *now, true);
}

// Space that is not written yet must not come into memory by reading: page by page, where a writer that finds none
// there makes many at once, at half the cost.
void SpoolReader::read_ahead(bool ahead) const noexcept {
    ::posix_fadvise(fd_, 0, 0, ahead ? POSIX_FADV_NORMAL : POSIX_FADV_RANDOM);
}

void SpoolReader::set_following(bool following) noexcept {
    following_ = following;
    read_ahead(!following);
}

std::size_t SpoolReader::read_at(std::uint64_t offset, void *to, std::size_t bytes) const {
    if (packed_ != nullptr) return packed_->read_at(offset, to, bytes);
    std::size_t done = 0;
    while (done < bytes) {
        if (offset + done > static_cast<std::uint64_t>(std::numeric_limits<off_t>::max())) break;
        const ssize_t got = pread(fd_, static_cast<char *>(to) + done, bytes - done, static_cast<off_t>(offset + done));
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        done += static_cast<std::size_t>(got);
    }
    return done;
}

std::uint64_t SpoolReader::file_size() const {
    if (packed_ != nullptr) return packed_->size();
    struct stat status {};
    return fstat(fd_, &status) == 0 && status.st_size > 0 ? static_cast<std::uint64_t>(status.st_size) : 0;
}

std::uint64_t SpoolReader::dropped() const {
    if (damage_.lost_header) return 0;
    std::uint64_t counts[static_cast<std::size_t>(wire::Drop::count)] = {};
    read_at(offsetof(wire::SpoolHeader, dropped), counts, sizeof(counts));
    std::uint64_t sum = 0;
    for (const std::uint64_t count : counts) sum = count > ~sum ? ~std::uint64_t{0} : sum + count;
    return sum;
}

// Where the next page with bytes on disk starts: a file may claim to be exabytes long and be one hole.
std::uint64_t SpoolReader::next_data(std::uint64_t offset) const {
    if (packed_ != nullptr) return offset;
    const off_t data = lseek(fd_, static_cast<off_t>(offset), SEEK_DATA);
    if (data < 0) return errno == ENXIO ? std::numeric_limits<std::uint64_t>::max() : offset;
    const std::uint64_t page = static_cast<std::uint64_t>(data) / wire::kPageBytes * wire::kPageBytes;
    return std::max(offset, page);
}

void SpoolReader::poll() {
    ++polls_;
    const std::uint64_t size = file_size();
    std::vector<Gap> gaps;
    gaps.swap(gaps_);
    damage_.lost_pages = 0;
    for (const Gap &gap : gaps) scan(gap.begin, gap.end, gap.end);

    std::uint64_t counters[2] = {0, 0};  // next_offset, reserved_bytes
    static_assert(offsetof(wire::SpoolHeader, reserved_bytes) == offsetof(wire::SpoolHeader, next_offset) + 8);
    if (damage_.lost_header) {
        counters[0] = counters[1] = size;
    } else {
        read_at(offsetof(wire::SpoolHeader, next_offset), counters, sizeof(counters));
    }
    if (ring_bytes_ == 0 || polls_ == 1) {
        scan(std::max<std::uint64_t>(scanned_to_, wire::kPageBytes), std::min(counters[0], size), size);
    } else {
        scan_ring(counters[0]);
    }
    if (ring_bytes_ != 0 && polls_ == 1) {
        ring_position_ = counters[0];
        overwritten_ = counters[0] > wire::kRingChunkBytes + ring_bytes_;
    }
    const std::uint64_t promised = std::max(std::min(counters[0], counters[1]), chunks_end_);
    damage_.missing_bytes = promised > size ? promised - size : 0;
    calibrate_here();
    if (sorted_) return;
    for (SpoolStream &stream : streams_) {
        std::sort(stream.chunks.begin(), stream.chunks.end());
    }
    sorted_ = true;
}

// Takes in the chunks from page `from` on. Where a header is missing it goes on page by page up to `to`; chunks that
// adjoin each other beyond `to`, up to `limit`, are still taken: a next_offset that tells too little loses nothing.
void SpoolReader::scan(std::uint64_t from, std::uint64_t to, std::uint64_t limit) {
    std::uint64_t offset = from;
    std::uint64_t gap = from;
    const auto end_gap = [&](std::uint64_t end) {
        constexpr std::size_t kMostGaps = 1024;
        if (end > gap && gaps_.size() < kMostGaps) gaps_.push_back({gap, end});
    };
    while (offset < limit) {
        std::uint32_t bytes = 0;
        if (read_chunk(offset, bytes)) {
            end_gap(offset);
            offset += bytes;
            gap = offset;
            continue;
        }
        if (offset >= to) break;
        const std::uint64_t next = next_data(offset + wire::kPageBytes);
        offset = std::min(next, page_up(to));
    }
    end_gap(std::min(offset, page_up(to)));
    // A chunk may reach beyond what was there of the file when its first page was claimed.
    scanned_to_ = std::max({scanned_to_, std::min(offset, page_up(limit)), gap});
}

// Looks at what was claimed of a ring since the last look: at most all of it.
void SpoolReader::scan_ring(std::uint64_t position) {
    constexpr std::chrono::milliseconds kPatience{500};  // for a header that its writer has not written yet
    const auto now = std::chrono::steady_clock::now();
    std::erase_if(rechecks_, [&](const Recheck &one) { return read_ring_chunk(one.offset) || now > one.until; });
    if (position > ring_position_ && position - ring_position_ > ring_bytes_) {
        ring_position_ = position - ring_bytes_;
        ring_position_ -= ring_position_ % wire::kRingChunkBytes;
        overwritten_ = true;
    }
    for (; ring_position_ < position; ring_position_ += wire::kRingChunkBytes) {
        const std::uint64_t offset = wire::ring_offset(ring_position_, ring_bytes_);
        // A chunk that was passed over, since its thread writes on, looks the same as one that is being taken.
        if (!read_ring_chunk(offset)) rechecks_.push_back({offset, now + kPatience});
    }
}

bool SpoolReader::makes_sense(const wire::ChunkHeader &header, std::uint64_t offset) const {
    const bool left = header.magic == wire::kLeftChunkMagic && header.version > 1;
    return (header.magic == wire::kChunkMagic || left) && header.version >= 1 &&
           header.version <= wire::kFormatVersion && header.offset == offset && header.bytes >= wire::kPageBytes &&
           header.bytes <= wire::kLargestChunkBytes && header.bytes % wire::kPageBytes == 0 &&
           (header.version > 1 || header.clock <= static_cast<std::uint16_t>(wire::ClockKind::tsc));
}

bool SpoolReader::read_chunk(std::uint64_t offset, std::uint32_t &bytes) {
    if (ring_bytes_ != 0 && read_ring_chunk(offset)) {
        bytes = wire::kRingChunkBytes;
        return true;
    }
    struct {
        wire::ChunkHeader header;
        RawSlot first;
    } start{};
    const std::size_t got = read_at(offset, &start, sizeof(start));
    if (got < sizeof(start.header)) return false;
    const wire::ChunkHeader &header = start.header;
    if (ring_bytes_ != 0 || !makes_sense(header, offset)) {
        const bool empty = all_zero(reinterpret_cast<const unsigned char *>(&start.header), sizeof(start.header));
        if (!empty && ring_bytes_ == 0) ++damage_.lost_pages;
        return false;
    }
    bytes = header.bytes;
    const std::uint32_t salt = salt_of(header);
    const bool committed = got == sizeof(start) && commit_of(start.first, salt) != wire::State::empty;
    add_chunk(header, committed ? start.first.begin : header.claimed.ticks);
    return true;
}

// True: the chunk there is known now and was not before.
bool SpoolReader::read_ring_chunk(std::uint64_t offset) {
    struct Start {
        wire::ChunkHeader header;
        RawSlot first;
    };
    Start start{}, again{};
    // A header that is being replaced while it is copied is not the same twice.
    if (read_at(offset, &start, sizeof(start)) != sizeof(start) || !makes_sense(start.header, offset)) return false;
    if (start.header.bytes != wire::kRingChunkBytes || read_at(offset, &again, sizeof(again)) != sizeof(again) ||
        std::memcmp(&start.header, &again.header, sizeof(start.header)) != 0) {
        return false;
    }
    const auto claim = ring_claims_.find(offset);
    if (claim != ring_claims_.end()) {
        if (claim->second.stream == start.header.stream && claim->second.sequence == start.header.sequence) {
            return polls_ == 1;
        }
        forget_chunk(claim->second, offset);
    }
    ring_claims_[offset] = {start.header.stream, start.header.sequence};
    const bool committed = commit_of(again.first, salt_of(start.header)) != wire::State::empty;
    add_chunk(start.header, committed ? again.first.begin : start.header.claimed.ticks);
    return true;
}

// What stood in a chunk of a ring was overwritten.
void SpoolReader::forget_chunk(const Claim &claim, std::uint64_t offset) {
    const auto stream = stream_index_.find(claim.stream);
    if (stream == stream_index_.end()) return;
    std::erase_if(streams_[stream->second].chunks, [&](const SpoolChunk &chunk) { return chunk.offset == offset; });
}

void SpoolReader::add_chunk(const wire::ChunkHeader &header, std::uint64_t first_begin) {
    chunks_end_ = std::max(chunks_end_, header.offset + header.bytes);
    const wire::ClockKind clock = wire::chunk_clock(header.clock);
    clock_.add(clock, header.claimed);
    if (clock == wire::ClockKind::tsc) latest_claim_ = std::max(latest_claim_, header.claimed.ticks);

    const auto [found, added] = stream_index_.try_emplace(header.stream, streams_.size());
    if (added) {
        streams_.emplace_back();
        streams_.back().id = header.stream;
    }
    SpoolStream &stream = streams_[found->second];
    if (added || (!sorted_ && header.sequence < stream.first_sequence)) {
        stream.first_sequence = header.sequence;
        // The first record is stamped before its chunk is claimed.
        stream.first_ticks = std::min(first_begin, header.claimed.ticks);
        stream.first_clock = clock;
    }
    SpoolChunk chunk;
    chunk.offset = header.offset;
    chunk.bytes = header.bytes;
    chunk.process = header.process;
    chunk.sequence = header.sequence;
    chunk.salt = salt_of(header);
    chunk.pid = header.pid;
    chunk.tid = header.tid;
    chunk.clock = clock;
    // While it is written, a chunk may show its header later than the next one does. A cursor that has read past its
    // place does not come back to it.
    stream.chunks.insert(
        sorted_ ? std::upper_bound(stream.chunks.begin(), stream.chunks.end(), chunk) : stream.chunks.end(), chunk);
}

// Whether a chunk of a ring is still the one that its header told when it was found.
bool SpoolReader::still_there(const SpoolChunk &chunk, std::uint32_t stream) const {
    std::atomic_thread_fence(std::memory_order_acquire);
    wire::ChunkHeader header{};
    return read_at(chunk.offset, &header, sizeof(header)) == sizeof(header) && makes_sense(header, chunk.offset) &&
           header.stream == stream && header.sequence == chunk.sequence;
}

bool SpoolReader::reread(SpoolRecord &record) const {
    RawSlot raw{};
    const std::uint64_t offset = record.slot * wire::kSlotBytes;
    if (read_at(offset, &raw, sizeof(raw)) != sizeof(raw)) return false;
    const std::uint32_t commit = raw.commit;
    const wire::State state = wire::commit_state(commit);
    if (ring_bytes_ != 0 && wire::commit_salt(commit) != wire::commit_salt(record.commit)) return true;
    if (wire::commit_salt(commit) != wire::commit_salt(record.commit) || state == wire::State::pending ||
        state == wire::State::empty || state > wire::State::abandoned) {
        return false;
    }
    // The copy may have been made while the record was being completed: what was written before the commit word is
    // certain only in a copy made after that word was seen.
    if (read_at(offset, &raw, sizeof(raw)) != sizeof(raw)) return false;
    if (wire::commit_salt(raw.commit) != wire::commit_salt(commit)) return true;
    record.state = state;
    record.commit = commit;
    record.end = raw.end;
    record.error = raw.error;
    record.file = raw.file;
    record.description = raw.description;
    record.a = raw.a;
    record.b = raw.b;
    return true;
}

std::vector<std::string> SpoolReader::messages() const {
    std::vector<std::string> lines;
    const std::string name = printable(path_);
    const auto tell = [&](std::uint64_t count, std::string_view what) {
        if (count != 0) lines.push_back(fmt::format("{}: {} {}", name, count, what));
    };
    if (damage_.lost_header)
        lines.push_back(fmt::format("{}: its header is lost; read from what its chunks repeat", name));
    if (overwritten_) {
        const bool whole = (ring_bytes_ & 0xfffff) == 0;
        lines.push_back(fmt::format("{}: older events were overwritten: it keeps the newest {} {}", name,
                                    ring_bytes_ >> (whole ? 20 : 10), whole ? "MiB" : "KiB"));
    }
    if (packed_ != nullptr) tell(packed_->damaged_blocks(), "damaged blocks of 64 KiB were skipped");
    tell(damage_.missing_bytes, "bytes are missing at the end: the file is truncated");
    tell(damage_.lost_pages, "damaged pages were skipped");
    tell(damage_.damaged, "damaged events were skipped");
    tell(damage_.cut_text, "names are cut short: part of their text is missing");
    std::uint64_t out_of_reach = 0;
    constexpr auto kOutOfReach = static_cast<std::size_t>(wire::Drop::no_mapping) * sizeof(out_of_reach);
    if (!damage_.lost_header) {
        read_at(offsetof(wire::SpoolHeader, dropped) + kOutOfReach, &out_of_reach, sizeof(out_of_reach));
        tell(out_of_reach,
             "events were lost by processes that could not reach more of the recording, as another user or in "
             "another root folder, or for want of address space: more room for it would not help");
    }
    if (!clock_.known_rate() && !streams_.empty()) {
        lines.push_back(fmt::format("{}: the rate of its clock is not known, so its times are only in order", name));
    }
    return lines;
}

}  // namespace planloop
