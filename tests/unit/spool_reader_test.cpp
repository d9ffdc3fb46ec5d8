#include "lockcore/spool_reader.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <random>

#include "lockcore/wire/stream_writer.h"
#include "tests/support/spool_fixture.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using test::SpoolFixture;
using wire::RecordKind;
using wire::State;

class SpoolReaderTest : public ::testing::Test {
  protected:
    std::string path() const { return folder_ / "locks-v1-00000000.spool"; }
    std::unique_ptr<SpoolReader> open(std::string_view bytes) const {
        SpoolFixture::write_bytes(path(), bytes);
        auto reader = SpoolReader::open(path());
        return reader ? std::move(*reader) : nullptr;
    }
    std::string error_of(std::string_view bytes) const {
        SpoolFixture::write_bytes(path(), bytes);
        const auto reader = SpoolReader::open(path());
        return reader ? "" : reader.error().message;
    }
    static std::vector<SpoolRecord> read_stream(SpoolReader &reader, std::size_t stream) {
        StreamCursor cursor(stream);
        std::vector<SpoolRecord> records;
        SpoolRecord record;
        while (cursor.next(reader, record)) records.push_back(record);
        return records;
    }
    // The `begin` of every record by stream number, in order.
    static std::map<std::uint32_t, std::vector<std::uint64_t>> read_all(SpoolReader &reader) {
        std::map<std::uint32_t, std::vector<std::uint64_t>> streams;
        for (std::size_t i = 0; i < reader.streams().size(); ++i) {
            for (const SpoolRecord &record : read_stream(reader, i)) {
                streams[reader.streams()[i].id].push_back(record.begin);
            }
        }
        return streams;
    }

    test::TempFolder folder_;
};

TEST_F(SpoolReaderTest, YieldsWhatWasRecorded) {
    SpoolFixture spool;
    auto &chunk = spool.chunk({.process = 7, .stream = 3, .pid = 100, .tid = 101});
    chunk.acquire({.family = wire::Family::posix,
                   .mode = wire::Mode::shared,
                   .begin = 10,
                   .end = 20,
                   .error = 11,
                   .fd = 4,
                   .file = 5,
                   .description = 6,
                   .a = 7,
                   .b = 8,
                   .caller = 9});
    chunk.release({.begin = 30});
    const auto reader = open(spool.bytes());
    ASSERT_NE(reader, nullptr);
    ASSERT_EQ(reader->streams().size(), 1U);
    const auto records = read_stream(*reader, 0);
    ASSERT_EQ(records.size(), 2U);
    const SpoolRecord &record = records[0];
    EXPECT_EQ(record.kind, RecordKind::acquire);
    EXPECT_EQ(record.state, State::complete);
    EXPECT_EQ(record.family, wire::Family::posix);
    EXPECT_EQ(record.mode, wire::Mode::shared);
    EXPECT_EQ(record.flags, wire::kBlocking);
    EXPECT_EQ(record.process, 7U);
    EXPECT_EQ(record.stream, 3U);
    EXPECT_EQ(record.pid, 100);
    EXPECT_EQ(record.tid, 101);
    EXPECT_EQ(record.begin, 10U);
    EXPECT_EQ(record.end, 20U);
    EXPECT_EQ(record.error, 11);
    EXPECT_EQ(record.fd, 4);
    EXPECT_EQ(record.file, 5U);
    EXPECT_EQ(record.description, 6U);
    EXPECT_EQ(record.a, 7U);
    EXPECT_EQ(record.b, 8U);
    EXPECT_EQ(record.caller, 9U);
    EXPECT_EQ(records[1].kind, RecordKind::release);
    EXPECT_TRUE(reader->messages().empty());
}

TEST_F(SpoolReaderTest, PutsTheChunksOfAStreamInOrder) {
    SpoolFixture spool;
    spool.chunk({.stream = 1, .sequence = 1}).acquire({.begin = 20});
    spool.chunk({.stream = 2, .sequence = 0}).acquire({.begin = 5});
    spool.chunk({.stream = 1, .sequence = 0, .bytes = 4 * wire::kPageBytes}).acquire({.begin = 10});
    spool.chunk({.stream = 1, .sequence = 2}).acquire({.begin = 30});
    const auto reader = open(spool.bytes());
    const auto streams = read_all(*reader);
    EXPECT_EQ(streams.at(1), (std::vector<std::uint64_t>{10, 20, 30}));
    EXPECT_EQ(streams.at(2), (std::vector<std::uint64_t>{5}));
}

TEST_F(SpoolReaderTest, SaysInOneLineWhyAFileIsNoSpool) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 1});
    const std::string good = spool.bytes();
    const auto with = [&](std::uint64_t offset, auto value) {
        std::string bytes = good;
        SpoolFixture::poke(bytes, offset, value);
        return bytes;
    };
    const struct {
        std::string bytes;
        const char *words;
    } cases[] = {
        {"", "is empty"},
        {"hello", "is not a spool"},
        {std::string(20'000, 'x'), "is not a spool"},
        {std::string(20'000, '\0'), "is not a spool"},
        {good.substr(0, 5), "truncated"},
        {good.substr(0, 100), "truncated"},
        {good.substr(0, 4095), "truncated"},
        {with(offsetof(wire::SpoolHeader, version), wire::kFormatVersion + 1), "newer version (format 3"},
        {with(offsetof(wire::SpoolHeader, endian), 0x04030201U), "other byte order"},
    };
    for (const auto &item : cases) {
        const std::string message = error_of(item.bytes);
        EXPECT_NE(message.find(item.words), std::string::npos) << message;
        EXPECT_EQ(message.find(path()), 0U) << message;
        EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
    EXPECT_NE(SpoolReader::open(folder_ / "missing").error().message.find("No such file"), std::string::npos);
    EXPECT_NE(SpoolReader::open(folder_.path()).error().message.find("is not a file"), std::string::npos);
    ASSERT_EQ(mkfifo((folder_ / "fifo").c_str(), 0600), 0);
    EXPECT_NE(SpoolReader::open(folder_ / "fifo").error().message.find("is not a file"), std::string::npos);
}

TEST_F(SpoolReaderTest, SaysWhenItMayNotRead) {
    SpoolFixture().write(path());
    ASSERT_EQ(chmod(path().c_str(), 0), 0);
    // Root may read everything, so it looks as somebody else.
    const uid_t before = geteuid();
    constexpr uid_t kNobody = 65534;
    ASSERT_EQ(before == 0 ? seteuid(kNobody) : 0, 0);
    EXPECT_NE(SpoolReader::open(path()).error().message.find("Permission denied"), std::string::npos);
    ASSERT_EQ(seteuid(before), 0);
}

TEST_F(SpoolReaderTest, NeverWritesItsInput) {
    SpoolFixture spool;
    spool.chunk().torn();
    std::string bytes = spool.bytes();
    bytes.resize(bytes.size() - 100);
    const auto reader = open(bytes);
    read_all(*reader);
    std::ifstream in(path(), std::ios::binary);
    EXPECT_TRUE(std::string(std::istreambuf_iterator<char>(in), {}) == bytes);
}

TEST_F(SpoolReaderTest, ReassemblesTextsAcrossSlots) {
    SpoolFixture spool;
    std::map<std::uint64_t, std::string> payloads;
    auto &chunk = spool.chunk({.bytes = 16 * wire::kPageBytes});
    for (const std::size_t size : {0U, 1U, 55U, 56U, 57U, 112U, 1'000U, 20'000U}) {
        std::string text;
        for (std::size_t i = 0; i < size; ++i) text += static_cast<char>('a' + i % 26);
        payloads[size] = text;
        chunk.with_payload({.kind = RecordKind::process, .begin = size}, text);
    }
    chunk.acquire({.begin = 99'999});
    const auto reader = open(spool.bytes());
    const auto records = read_stream(*reader, 0);
    ASSERT_EQ(records.size(), payloads.size() + 1);
    for (std::size_t i = 0; i < payloads.size(); ++i) EXPECT_EQ(records[i].payload, payloads[records[i].begin]);
    EXPECT_EQ(records.back().kind, RecordKind::acquire);
    EXPECT_TRUE(records.back().payload.empty());
    EXPECT_EQ(reader->damage().cut_text, 0U);
}

TEST_F(SpoolReaderTest, KeepsWhatThereIsOfACutText) {
    SpoolFixture spool;
    spool.chunk().with_payload({.kind = RecordKind::process, .begin = 1}, std::string(200, 'x'));
    std::string bytes = spool.bytes();
    SpoolFixture::poke(bytes, wire::kPageBytes + 3 * wire::kSlotBytes, std::uint32_t{0});  // its second text slot
    const auto reader = open(bytes);
    const auto records = read_stream(*reader, 0);
    ASSERT_EQ(records.size(), 1U);
    EXPECT_EQ(records[0].payload, std::string(56, 'x'));
    EXPECT_EQ(reader->damage().cut_text, 1U);
    EXPECT_EQ(reader->messages().size(), 1U);
}

TEST_F(SpoolReaderTest, CountsTornSlotsOnlyBeforeACommittedOne) {
    SpoolFixture spool;
    auto &chunk = spool.chunk({.sequence = 0});
    chunk.acquire({.begin = 1});
    chunk.torn();
    chunk.torn();
    chunk.acquire({.begin = 2});
    chunk.torn();  // claimed last: nobody knows
    spool.chunk({.sequence = 1}).acquire({.begin = 3});
    const auto reader = open(spool.bytes());
    EXPECT_EQ(read_all(*reader).at(1), (std::vector<std::uint64_t>{1, 2, 3}));
    EXPECT_EQ(reader->damage().torn, 2U);
}

TEST_F(SpoolReaderTest, TakesNoRecordOfAnotherChunk) {
    SpoolFixture spool;
    spool.chunk({.stream = 1}).acquire({.begin = 1});
    auto &second = spool.chunk({.stream = 2});
    second.acquire({.begin = 2});
    second.acquire({.begin = 3});
    std::string bytes = spool.bytes();
    // A stray copy of the first chunk's record lands in the second chunk.
    bytes.replace(2 * wire::kPageBytes + wire::kSlotBytes, wire::kSlotBytes,
                  bytes.substr(wire::kPageBytes + wire::kSlotBytes, wire::kSlotBytes));
    const auto reader = open(bytes);
    EXPECT_EQ(read_all(*reader).at(2), (std::vector<std::uint64_t>{3}));
    EXPECT_EQ(reader->damage().torn, 1U);
}

TEST_F(SpoolReaderTest, PassesOverRecordsThatMakeNoSense) {
    SpoolFixture spool;
    auto &chunk = spool.chunk();
    chunk.record({.kind = static_cast<RecordKind>(77), .begin = 1});
    chunk.record({.family = static_cast<wire::Family>(99), .begin = 2});
    chunk.record({.mode = static_cast<wire::Mode>(9), .begin = 3});
    chunk.record({.kind = RecordKind::none, .begin = 4});
    chunk.acquire({.begin = 5});
    const auto reader = open(spool.bytes());
    EXPECT_EQ(read_all(*reader).at(1), (std::vector<std::uint64_t>{5}));
    EXPECT_EQ(reader->damage().damaged, 4U);
}

TEST_F(SpoolReaderTest, FindsChunksBehindAMissingHeader) {
    SpoolFixture spool;
    spool.chunk({.stream = 1}).acquire({.begin = 1});
    spool.chunk({.stream = 2, .bytes = 8 * wire::kPageBytes}).acquire({.begin = 2});
    spool.chunk({.stream = 3}).acquire({.begin = 3});
    std::string bytes = spool.bytes();
    SpoolFixture::poke(bytes, 2 * wire::kPageBytes, std::uint32_t{0});
    const auto reader = open(bytes);
    const auto streams = read_all(*reader);
    EXPECT_EQ(streams.size(), 2U);
    EXPECT_EQ(streams.at(3), (std::vector<std::uint64_t>{3}));
    EXPECT_EQ(reader->damage().lost_pages, 1U);
}

TEST_F(SpoolReaderTest, ReadsOnWithoutPageZero) {
    SpoolFixture spool(wire::ClockKind::monotonic, {1'000, 1'000, test::kEpochNs});
    spool.chunk({.stream = 1, .claimed = {1'500, 1'500, test::kEpochNs + 500}}).acquire({.begin = 2'000});
    spool.chunk({.stream = 2, .claimed = {1'600, 1'600, test::kEpochNs + 600}}).acquire({.begin = 3'000});
    std::string bytes = spool.bytes();
    bytes.replace(0, wire::kPageBytes, wire::kPageBytes, '\0');
    const auto reader = open(bytes);
    ASSERT_NE(reader, nullptr);
    EXPECT_EQ(read_all(*reader).size(), 2U);
    EXPECT_EQ(reader->clock().utc_ns(2'000), static_cast<std::int64_t>(test::kEpochNs) + 1'000);
    EXPECT_EQ(reader->messages().size(), 1U);
}

TEST_F(SpoolReaderTest, TakesTheCountersRateFromWhatTheLastToEndLeft) {
    SpoolFixture spool(wire::ClockKind::tsc, {1'000, 5'000, test::kEpochNs});
    spool.chunk().acquire({.begin = 2'000});
    const auto utc_of = [&](std::uint32_t supervisor, std::uint64_t ticks, std::uint64_t monotonic_ns) {
        std::string bytes = spool.bytes();
        SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, supervisor), supervisor);
        SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, final_ticks), ticks);
        SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, final_monotonic_ns), monotonic_ns);
        return open(bytes)->clock().utc_ns(1'000 + 2'000'000) - static_cast<std::int64_t>(test::kEpochNs);
    };
    EXPECT_EQ(utc_of(0, 1'000 + 4'000'000, 5'000 + 2'000'000), 1'000'000);  // two ticks a nanosecond
    EXPECT_EQ(utc_of(static_cast<std::uint32_t>(getpid()), 1'000 + 4'000'000, 5'000 + 2'000'000),
              2'000'000);                                   // there is a supervisor: not final
    EXPECT_EQ(utc_of(0, 0, 5'000 + 2'000'000), 2'000'000);  // there was none
    EXPECT_EQ(utc_of(0, 1, 5'000 + 2'000'000), 2'000'000);  // somebody was killed as it left them
    const pid_t gone = fork();
    if (gone == 0) _exit(0);
    waitpid(gone, nullptr, 0);
    EXPECT_EQ(utc_of(static_cast<std::uint32_t>(gone), 1'000 + 4'000'000, 5'000 + 2'000'000), 1'000'000);
    EXPECT_EQ(utc_of(0, 1'000 + 4'000'000, 4'000), 2'000'000);  // nonsense
}

TEST_F(SpoolReaderTest, ClocksLeftBeforeTheLastProgramBeganAreNotTheLast) {
    SpoolFixture spool(wire::ClockKind::tsc, {1'000, 5'000, test::kEpochNs});
    spool
        .chunk({.clock = wire::ClockKind::tsc,
                .claimed = {1'000 + 6'000'000, 5'000 + 6'000'000, test::kEpochNs + 6'000'000}})
        .acquire({.begin = 2'000});
    std::string bytes = spool.bytes();
    SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, final_ticks), std::uint64_t{1'000 + 2'000'000});
    SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, final_monotonic_ns), std::uint64_t{5'000 + 1'000'000});
    const auto reader = open(bytes);
    EXPECT_EQ(reader->clock().utc_ns(1'000 + 4'000'000) - static_cast<std::int64_t>(test::kEpochNs), 4'000'000);
}

TEST_F(SpoolReaderTest, DoesNotBelieveNextOffset) {
    SpoolFixture spool;
    for (std::uint32_t i = 1; i <= 5; ++i) spool.chunk({.stream = i}).acquire({.begin = i});
    for (const std::uint64_t lie :
         {std::uint64_t{0}, std::uint64_t{8192}, std::uint64_t{12'345}, std::uint64_t{1} << 60, ~std::uint64_t{0}}) {
        std::string bytes = spool.bytes();
        SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, next_offset), lie);
        EXPECT_EQ(read_all(*open(bytes)).size(), 5U) << lie;
    }
}

TEST_F(SpoolReaderTest, IsNotHeldUpByAFileThatIsOneHole) {
    SpoolFixture spool;
    spool.chunk().acquire({.begin = 1});
    std::string bytes = spool.bytes();
    SpoolFixture::poke(bytes, offsetof(wire::SpoolHeader, next_offset), std::uint64_t{1} << 42);
    SpoolFixture::write_bytes(path(), bytes);
    if (truncate(path().c_str(), off_t{1} << 42) != 0) GTEST_SKIP() << "this file system has no such long files";
    const auto reader = SpoolReader::open(path());
    ASSERT_TRUE(reader);
    EXPECT_EQ(read_all(**reader).size(), 1U);
}

TEST_F(SpoolReaderTest, CountsDropsWithoutOverflow) {
    SpoolFixture spool;
    spool.drop(3);
    spool.drop(4, wire::Drop::too_long);
    EXPECT_EQ(open(spool.bytes())->dropped(), 7U);
    spool.drop(~std::uint64_t{0} - 3);
    EXPECT_EQ(open(spool.bytes())->dropped(), ~std::uint64_t{0});
}

// Every length of the file: each record that lies wholly in it is read, and no other.
TEST_F(SpoolReaderTest, RecoversEveryWholeRecordOfAFileCutAtAnyByte) {
    SpoolFixture spool;
    auto &first = spool.chunk({.stream = 1, .sequence = 0});
    first.process("a program", {}, 1);
    for (std::uint64_t i = 2; i < 20; ++i) first.acquire({.begin = i});
    auto &second = spool.chunk({.stream = 2});
    for (std::uint64_t i = 0; i < 5; ++i) second.acquire({.begin = i});
    auto &third = spool.chunk({.stream = 1, .sequence = 1});
    for (std::uint64_t i = 20; i < 30; ++i) third.acquire({.begin = i});
    const std::string whole = spool.bytes();

    // Where each record of a text-less kind ends, and what it says.
    struct Expected {
        std::uint64_t end;
        std::uint32_t stream;
        std::uint64_t begin;
    };
    std::vector<Expected> expected;
    {
        const auto reader = open(whole);
        for (std::size_t i = 0; i < reader->streams().size(); ++i) {
            for (const SpoolRecord &record : read_stream(*reader, i)) {
                expected.push_back({(record.slot + 1) * wire::kSlotBytes, record.stream, record.begin});
            }
        }
        ASSERT_EQ(expected.size(), 1U + 18 + 5 + 10);
    }
    SpoolFixture::write_bytes(path(), whole);
    for (std::size_t size = whole.size(); size >= wire::kPageBytes; --size) {
        ASSERT_EQ(truncate(path().c_str(), static_cast<off_t>(size)), 0);
        // Only lengths near a slot's end can differ in what is whole.
        const auto opened = SpoolReader::open(path());
        ASSERT_TRUE(opened) << size;
        std::map<std::uint32_t, std::vector<std::uint64_t>> want;
        for (const Expected &record : expected) {
            if (record.end <= size) want[record.stream].push_back(record.begin);
        }
        ASSERT_EQ(read_all(**opened), want) << "cut to " << size << " bytes";
        if (size < whole.size()) {
            ASSERT_EQ((*opened)->damage().missing_bytes, whole.size() - size);
        }
    }
    for (std::size_t size = wire::kPageBytes - 1; size > 0; --size) {
        ASSERT_EQ(truncate(path().c_str(), static_cast<off_t>(size)), 0);
        ASSERT_NE(SpoolReader::open(path()).error().message.find("truncated"), std::string::npos) << size;
    }
}

TEST_F(SpoolReaderTest, SurvivesRandomDamage) {
    SpoolFixture spool;
    for (std::uint32_t stream = 1; stream <= 4; ++stream) {
        auto &chunk = spool.chunk({.process = stream, .stream = stream, .bytes = stream % 2 == 0 ? 16384U : 4096U});
        chunk.process("some program with arguments", {}, 1).file(1, "/tmp/a", 0, 2);
        for (std::uint64_t i = 3; i < 40; ++i) chunk.acquire({.begin = i, .end = i + 1, .file = 1});
    }
    const std::string whole = spool.bytes();
    const std::size_t records = 4 * (2 + 37);
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    for (int round = 0; round < 1'500; ++round) {
        std::string bytes = whole;
        const auto hits = 1 + random() % 40;
        for (std::uint64_t i = 0; i < hits; ++i) {
            const std::size_t at = random() % (bytes.size() - 8);
            switch (random() % 4) {
                case 0:
                    bytes[at] = static_cast<char>(random());
                    break;
                case 1:
                    SpoolFixture::poke(bytes, at, random());
                    break;
                case 2:
                    SpoolFixture::poke(bytes, at, ~std::uint64_t{0});
                    break;
                default: {  // headers, where lies hurt most
                    const std::size_t page = random() % (bytes.size() / wire::kPageBytes) * wire::kPageBytes;
                    SpoolFixture::poke(bytes, page + random() % 56, random());
                }
            }
        }
        if (random() % 4 == 0) bytes.resize(random() % bytes.size());
        const auto reader = open(bytes);
        if (reader == nullptr) continue;
        std::size_t read = 0;
        for (std::size_t i = 0; i < reader->streams().size(); ++i) read += read_stream(*reader, i).size();
        // Chunks that overlap because of a lie about their length may be read twice, no more.
        ASSERT_LE(read, 4 * records);
        reader->poll();
        reader->messages();
    }
}

TEST_F(SpoolReaderTest, ReadsTenThousandStreamsInSmallWindows) {
    SpoolFixture spool;
    constexpr std::uint32_t kStreams = 10'000;
    for (std::uint32_t i = 1; i <= kStreams; ++i) spool.chunk({.stream = i}).acquire({.begin = i});
    const auto reader = open(spool.bytes());
    ASSERT_EQ(reader->streams().size(), kStreams);
    std::vector<StreamCursor> cursors;
    SpoolRecord record;
    for (std::size_t i = 0; i < kStreams; ++i) {
        cursors.emplace_back(i);
        ASSERT_TRUE(cursors.back().next(*reader, record));
    }
    for (StreamCursor &cursor : cursors) ASSERT_FALSE(cursor.next(*reader, record));
}

}  // namespace
}  // namespace planloop
