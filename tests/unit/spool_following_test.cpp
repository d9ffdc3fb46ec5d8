// SpoolReader and StreamCursor while the spool is written: what is passed, what is waited for, what comes late.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "lockcore/spool_reader.h"
#include "lockcore/wire/stream_writer.h"
#include "tests/support/temp_folder.h"

namespace planloop {
namespace {

using wire::RecordKind;
using wire::State;

class SpoolFollowing : public ::testing::Test {
  protected:
    test::TempFolder folder_;
};

// How many pages of a file from `offset` on are in memory; -1: the file is in memory as a whole, or it cannot be asked.
long pages_in_memory(const char *path, off_t offset) {
    const int fd = ::open(path, O_RDWR | O_CLOEXEC);
    struct statfs disk {};
    struct stat status {};
    constexpr long kTmpfs = 0x01021994;
    long found = -1;
    if (fd >= 0 && fstatfs(fd, &disk) == 0 && disk.f_type != kTmpfs && fstat(fd, &status) == 0 &&
        status.st_size > offset) {
        const auto bytes = static_cast<std::size_t>(status.st_size - offset);
        std::vector<unsigned char> in_memory((bytes + wire::kPageBytes - 1) / wire::kPageBytes);
        void *mapped = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset);
        if (mapped != MAP_FAILED && mincore(mapped, bytes, in_memory.data()) == 0) {
            found = 0;
            for (const unsigned char page : in_memory) found += page & 1;
        }
        if (mapped != MAP_FAILED) munmap(mapped, bytes);
    }
    if (fd >= 0) ::close(fd);
    return found;
}

// What reading brings into memory page by page, a writer can no longer make many of at once.
TEST_F(SpoolFollowing, BringsNothingIntoMemoryThatIsNotWrittenYet) {
    auto spool = std::make_unique<wire::SpoolWriter>();
    ASSERT_EQ(spool->open(folder_.path().c_str()), 0);
    wire::StreamWriter writer;
    wire::Record *record = writer.claim(*spool, {1, getpid(), getpid()});
    record->kind = RecordKind::acquire;
    writer.publish(record, State::complete);
    auto reader = SpoolReader::open(spool->path());
    ASSERT_TRUE(reader) << reader.error().message;
    (*reader)->set_following(true);
    (*reader)->poll();
    StreamCursor cursor(0);
    SpoolRecord read;
    ASSERT_TRUE(cursor.next(**reader, read));
    ASSERT_FALSE(cursor.next(**reader, read));
    constexpr off_t kBehindTheNextChunksHeader = 3 * wire::kPageBytes;
    const long pages = pages_in_memory(spool->path(), kBehindTheNextChunksHeader);
    if (pages < 0) GTEST_SKIP() << "no disk under " << folder_.path() << " whose pages can be counted";
    constexpr long kOfOnePiece = 12;  // some file systems have pages in pieces of 64 KiB at the least
    EXPECT_LE(pages, kOfOnePiece);
}

TEST_F(SpoolFollowing, ReadsOnInASpoolThatIsBeingWritten) {
    auto spool = std::make_unique<wire::SpoolWriter>();
    ASSERT_EQ(spool->open(folder_.path().c_str()), 0);
    wire::StreamWriter writer;
    const wire::WriterIdentity who{1, getpid(), getpid()};
    const auto write = [&](std::uint64_t begin, State state = State::complete) {
        wire::Record *record = writer.claim(*spool, who);
        record->kind = RecordKind::acquire;
        record->begin = begin;
        writer.publish(record, state);
        return record;
    };
    auto opened = SpoolReader::open(spool->path());
    ASSERT_TRUE(opened) << opened.error().message;
    SpoolReader &reader = **opened;
    reader.set_following(true);
    EXPECT_TRUE(reader.streams().empty());

    write(1);
    reader.poll();
    ASSERT_EQ(reader.streams().size(), 1U);
    StreamCursor cursor(0);
    SpoolRecord record;
    ASSERT_TRUE(cursor.next(reader, record));
    EXPECT_EQ(record.begin, 1U);
    EXPECT_FALSE(cursor.next(reader, record));

    std::uint64_t next = 2;
    for (int round = 0; round < 40; ++round) {
        for (int i = 0; i < 200; ++i) write(next + static_cast<std::uint64_t>(i));
        reader.poll();
        for (int i = 0; i < 200; ++i) {
            ASSERT_TRUE(cursor.next(reader, record)) << next;
            ASSERT_EQ(record.begin, next++);
        }
        ASSERT_FALSE(cursor.next(reader, record));
    }
    EXPECT_EQ(reader.damage().torn, 0U);
    EXPECT_GT(reader.streams()[0].chunks.size(), 2U);

    wire::StreamWriter another;
    wire::Record *theirs = another.claim(*spool, {2, getpid(), 77});
    theirs->kind = RecordKind::release;
    another.publish(theirs, State::complete);
    reader.poll();
    ASSERT_EQ(reader.streams().size(), 2U);
    StreamCursor second(1);
    EXPECT_TRUE(second.next(reader, record));
    EXPECT_FALSE(second.next(reader, record));
}

TEST_F(SpoolFollowing, LooksAgainAtAPendingRecord) {
    auto spool = std::make_unique<wire::SpoolWriter>();
    ASSERT_EQ(spool->open(folder_.path().c_str()), 0);
    wire::StreamWriter writer;
    wire::Record *live = writer.claim(*spool, {1, getpid(), getpid()});
    live->kind = RecordKind::acquire;
    live->begin = 5;
    writer.publish(live, State::pending);
    auto opened = SpoolReader::open(spool->path());
    StreamCursor cursor(0);
    SpoolRecord record;
    ASSERT_TRUE(cursor.next(**opened, record));
    EXPECT_EQ(record.state, State::pending);
    EXPECT_FALSE((*opened)->reread(record));
    live->end = 9;
    live->error = 4;
    wire::StreamWriter::conclude(live, State::complete);
    EXPECT_TRUE((*opened)->reread(record));
    EXPECT_EQ(record.state, State::complete);
    EXPECT_EQ(record.end, 9U);
    EXPECT_EQ(record.error, 4);
}

TEST_F(SpoolFollowing, WaitsOnePollForASlotThatASignalHandlerOvertook) {
    auto spool = std::make_unique<wire::SpoolWriter>();
    ASSERT_EQ(spool->open(folder_.path().c_str()), 0);
    wire::StreamWriter writer;
    const wire::WriterIdentity who{1, getpid(), getpid()};
    const auto claim = [&](std::uint64_t begin) {
        wire::Record *record = writer.claim(*spool, who);
        record->kind = RecordKind::acquire;
        record->begin = begin;
        return record;
    };
    wire::Record *outer = claim(1);
    wire::Record *inner = claim(2);
    writer.publish(inner, State::complete);
    auto opened = SpoolReader::open(spool->path());
    SpoolReader &reader = **opened;
    reader.set_following(true);
    StreamCursor cursor(0);
    SpoolRecord record;
    EXPECT_FALSE(cursor.next(reader, record));
    writer.publish(outer, State::pending);
    reader.poll();
    ASSERT_TRUE(cursor.next(reader, record));
    EXPECT_EQ(record.begin, 1U);
    ASSERT_TRUE(cursor.next(reader, record));
    EXPECT_EQ(record.begin, 2U);

    claim(3);  // its thread was killed right here
    writer.publish(claim(4), State::complete);
    reader.poll();
    EXPECT_FALSE(cursor.next(reader, record));
    reader.poll();
    ASSERT_TRUE(cursor.next(reader, record));
    EXPECT_EQ(record.begin, 4U);
    EXPECT_EQ(reader.damage().torn, 1U);
}

// Writers and a follower at the same time: every record arrives once, whole and in its thread's order.
TEST_F(SpoolFollowing, FollowsThreadsThatWriteAtTheSameTime) {
    auto spool = std::make_unique<wire::SpoolWriter>();
    ASSERT_EQ(spool->open(folder_.path().c_str()), 0);
    constexpr int kThreads = 3;
    constexpr std::uint64_t kRecords = 30'000;
    std::vector<std::thread> threads;
    threads.reserve(kThreads);
    for (int t = 0; t < kThreads; ++t) {
        threads.emplace_back([&, t] {
            wire::StreamWriter writer;
            for (std::uint64_t i = 1; i <= kRecords; ++i) {
                wire::Record *record = writer.claim(*spool, {1, getpid(), 1'000 + t});
                record->kind = RecordKind::acquire;
                record->begin = i;
                record->caller = i * 3;
                writer.publish(record, State::complete);
            }
        });
    }
    auto opened = SpoolReader::open(spool->path());
    SpoolReader &reader = **opened;
    reader.set_following(true);
    std::vector<StreamCursor> cursors;
    std::vector<std::uint64_t> seen;
    std::uint64_t total = 0;
    SpoolRecord record;
    for (int poll = 0; total < kThreads * kRecords && poll < 1'000'000; ++poll) {
        reader.poll();
        while (cursors.size() < reader.streams().size()) {
            cursors.emplace_back(cursors.size());
            seen.push_back(0);
        }
        for (std::size_t i = 0; i < cursors.size(); ++i) {
            while (cursors[i].next(reader, record)) {
                ASSERT_EQ(record.begin, seen[i] + 1);
                ASSERT_EQ(record.caller, record.begin * 3);
                seen[i] = record.begin;
                ++total;
            }
        }
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT_EQ(total, kThreads * kRecords);
    EXPECT_EQ(reader.damage().torn, 0U);
}

// A writer that is moved along slot by slot, and a cursor that follows it.
class SlotBySlot : public SpoolFollowing {
  protected:
    void SetUp() override {
        ASSERT_EQ(spool_->open(folder_.path().c_str()), 0);
        writer_.publish(claim(0), State::complete);
        reader_ = std::move(*SpoolReader::open(spool_->path()));
        reader_->set_following(true);
        EXPECT_EQ(look(), std::vector<std::uint64_t>{0});
    }
    wire::Record *claim(std::uint64_t begin, std::size_t text_slots = 0) {
        wire::Record *record = writer_.claim(*spool_, who_, 1 + text_slots);
        record->kind = RecordKind::acquire;
        record->begin = begin;
        return record;
    }
    // The text behind a record, committed in front of it, as claim_with_text() does.
    void commit_text(wire::Record *record, std::size_t slots) {
        const std::uint32_t salt = wire::commit_salt(record->commit.load());
        record->kind = RecordKind::file;
        record->end = slots * wire::kTextBytes;
        for (std::size_t i = 0; i < slots; ++i) {
            auto *slot = reinterpret_cast<wire::TextSlot *>(record + 1 + i);
            slot->kind = RecordKind::text;
            slot->index_low = static_cast<std::uint8_t>(i);
            slot->used = wire::kTextBytes;
            std::memset(slot->bytes, 'x', wire::kTextBytes);
            slot->commit.store(wire::commit_word(salt, State::complete));
        }
    }
    // What a look finds, by `begin`.
    std::vector<std::uint64_t> look() {
        reader_->poll();
        std::vector<std::uint64_t> found;
        while (cursor_.next(*reader_, record_)) found.push_back(record_.begin);
        return found;
    }
    using Found = std::vector<std::uint64_t>;

    std::unique_ptr<wire::SpoolWriter> spool_ = std::make_unique<wire::SpoolWriter>();
    wire::StreamWriter writer_;
    wire::WriterIdentity who_{1, getpid(), getpid()};
    std::unique_ptr<SpoolReader> reader_;
    StreamCursor cursor_{0};
    SpoolRecord record_;
};

TEST_F(SlotBySlot, TextNeverPassesTheRecordThatItBelongsTo) {
    constexpr std::size_t kSlots = 40;
    wire::Record *named = claim(1, kSlots);
    commit_text(named, kSlots);
    for (int i = 0; i < 10; ++i) EXPECT_EQ(look(), Found{});  // its thread is without a processor
    writer_.publish(named, State::complete);
    EXPECT_EQ(look(), Found{1});
    EXPECT_EQ(record_.payload, std::string(kSlots * wire::kTextBytes, 'x'));
    EXPECT_EQ(reader_->damage().torn, 0U);
}

TEST_F(SlotBySlot, WhatASignalHandlerOvertookComesLateButComes) {
    wire::Record *outer = claim(1);
    wire::Record *named = claim(2, 2);
    commit_text(named, 2);
    writer_.publish(claim(3), State::pending);  // the handler, blocked for as long as it likes
    EXPECT_EQ(look(), Found{});
    EXPECT_EQ(look(), Found{3});
    EXPECT_EQ(look(), Found{});
    EXPECT_EQ(reader_->damage().torn, 2U);
    writer_.publish(claim(4), State::complete);
    writer_.publish(named, State::complete);
    EXPECT_EQ(look(), (Found{4, 2}));
    EXPECT_EQ(record_.payload.size(), 2 * wire::kTextBytes);
    writer_.publish(outer, State::complete);
    EXPECT_EQ(look(), Found{1});
    EXPECT_EQ(reader_->damage().torn, 0U);
    writer_.publish(claim(5), State::complete);
    EXPECT_EQ(look(), Found{5});
}

TEST_F(SlotBySlot, WhatIsOvertakenInAFullChunkComesToo) {
    wire::Record *outer = claim(1);
    Found expected;
    for (std::uint64_t i = 2; i < 200; ++i) {  // into the second chunk
        writer_.publish(claim(i), State::complete);
        expected.push_back(i);
    }
    EXPECT_EQ(look(), expected);
    writer_.publish(outer, State::complete);
    EXPECT_EQ(look(), Found{1});
    EXPECT_EQ(reader_->damage().torn, 0U);
}

// Most looks at a stream in which nothing happens are at its next slots alone.
TEST_F(SlotBySlot, BehindALongGapNothingIsLost) {
    EXPECT_EQ(look(), Found{});
    EXPECT_EQ(look(), Found{});
    claim(1, 20);  // a path; a signal handler comes before any of it is written, and blocks
    writer_.publish(claim(2), State::pending);
    Found found;
    for (int looks = 0; found.empty(); ++looks) {
        ASSERT_LT(looks, 10);
        found = look();
    }
    EXPECT_EQ(found, Found{2});
}

TEST_F(SlotBySlot, ALookAtAStreamInWhichNothingHappensReadsLittle) {
    const auto bytes_read = [] {
        std::ifstream io("/proc/self/io");
        std::string label;
        std::uint64_t bytes = 0;
        return io >> label >> bytes && label == "rchar:" ? bytes : 0;
    };
    if (bytes_read() == 0) GTEST_SKIP() << "this kernel does not count what a process reads";
    writer_.publish(claim(1), State::complete);
    EXPECT_EQ(look(), Found{1});
    EXPECT_EQ(look(), Found{});
    constexpr std::uint64_t kLooks = 64;
    const std::uint64_t before = bytes_read();
    for (std::uint64_t i = 0; i < kLooks; ++i) EXPECT_EQ(look(), Found{});
    EXPECT_LT((bytes_read() - before) / kLooks, wire::kPageBytes / 4);
}

TEST_F(SlotBySlot, NothingIsWaitedForOnceNobodyWrites) {
    commit_text(claim(1, 3), 3);  // its thread was killed right here
    EXPECT_EQ(look(), Found{});
    writer_.publish(claim(2), State::complete);  // another life of the same thread number
    reader_->set_following(false);
    EXPECT_EQ(look(), Found{2});
    EXPECT_EQ(reader_->damage().torn, 1U);
}

}  // namespace
}  // namespace planloop
