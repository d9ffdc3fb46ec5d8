// A spool that is a flight recorder: both ends of it, writer and reader.
#include <gtest/gtest.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <thread>
#include <vector>

#include "lockcore/spool_reader.h"
#include "lockcore/wire/stream_writer.h"
#include "tests/support/temp_folder.h"

namespace planloop::wire {
namespace {

using test::TempFolder;

constexpr std::uint64_t kRing = kSmallestRingBytes;
constexpr std::uint64_t kRecordsOfARing = kRing / kSlotBytes;

class SpoolRing : public ::testing::Test {
  protected:
    void SetUp() override { ASSERT_EQ(spool->open(folder.path().c_str(), kDefaultLimitBytes, kRing), 0); }

    WriterIdentity me() const { return {1, getpid(), static_cast<std::int32_t>(raw_syscall(SYS_gettid))}; }
    // A record that can be told from a mixture of two: its number stands in it twice.
    bool write(StreamWriter &stream, std::uint64_t number, State state = State::complete) {
        Record *record = stream.claim(*spool, me());
        if (record == nullptr) return false;
        fill(*record, number);
        stream.publish(record, state);
        return true;
    }
    void fill(Record &record, std::uint64_t number) {
        record.kind = RecordKind::acquire;
        record.mode = Mode::exclusive;
        record.begin = record.end = spool->ticks();
        record.a = number;
        record.b = ~number;
    }
    std::uint64_t dropped() const {
        std::uint64_t sum = 0;
        for (const auto &count : spool->header().dropped) sum += count.load();
        return sum;
    }

    // Numbers by stream, in the order of reading.
    using Numbers = std::map<std::uint32_t, std::vector<std::uint64_t>>;
    static void read_on(SpoolReader &reader, std::vector<StreamCursor> &cursors, Numbers &out) {
        while (cursors.size() < reader.streams().size()) cursors.emplace_back(cursors.size());
        for (StreamCursor &cursor : cursors) {
            for (SpoolRecord record; cursor.next(reader, record);) {
                ASSERT_EQ(record.b, ~record.a) << "a mixture of two records";
                out[record.stream].push_back(record.a);
            }
        }
    }
    Numbers read(bool &overwritten) {
        Numbers out;
        auto reader = SpoolReader::open(spool->path());
        EXPECT_TRUE(reader);
        if (!reader) return out;
        std::vector<StreamCursor> cursors;
        read_on(**reader, cursors, out);
        overwritten = (*reader)->overwritten();
        EXPECT_EQ((*reader)->damage().lost_pages, 0U);
        return out;
    }

    TempFolder folder;
    std::unique_ptr<SpoolWriter> spool = std::make_unique<SpoolWriter>();
};

TEST_F(SpoolRing, KeepsTheNewestInABoundedFileAndTellsThatItDid) {
    StreamWriter stream;
    bool overwritten = true;
    for (std::uint64_t i = 0; i < 100; ++i) ASSERT_TRUE(write(stream, i));
    EXPECT_EQ(read(overwritten)[1].size(), 100U);
    EXPECT_FALSE(overwritten);

    const std::uint64_t last = 10 * kRecordsOfARing;
    for (std::uint64_t i = 100; i < last; ++i) ASSERT_TRUE(write(stream, i));
    const std::vector<std::uint64_t> kept = read(overwritten)[1];
    EXPECT_TRUE(overwritten);
    ASSERT_GT(kept.size(), kRecordsOfARing * 9 / 10);
    for (std::size_t i = 0; i < kept.size(); ++i) ASSERT_EQ(kept[i], last - kept.size() + i) << "not the newest";
    struct stat status {};
    ASSERT_EQ(stat(spool->path(), &status), 0);
    EXPECT_LE(static_cast<std::uint64_t>(status.st_size), kRing + kRingChunkBytes);
    EXPECT_EQ(dropped(), 0U);
}

TEST_F(SpoolRing, NeverTakesAChunkThatALivingThreadWritesInto) {
    StreamWriter slow;
    for (std::uint64_t i = 0; i < 3; ++i) ASSERT_TRUE(write(slow, i));
    std::thread([&] {
        StreamWriter busy;
        for (std::uint64_t i = 0; i < 5 * kRecordsOfARing; ++i) ASSERT_TRUE(write(busy, i));
    }).join();
    ASSERT_TRUE(write(slow, 3));
    bool overwritten = false;
    EXPECT_EQ(read(overwritten)[1], (std::vector<std::uint64_t>{0, 1, 2, 3}));
    EXPECT_TRUE(overwritten);
}

TEST_F(SpoolRing, KeepsAChunkAsLongAsARecordInItIsUnfinished) {
    StreamWriter stream;
    Record *unfinished = stream.claim(*spool, me());
    fill(*unfinished, 77);
    stream.publish(unfinished, State::pending);
    stream.unfinished = 1;  // a signal handler runs, and locks
    for (std::uint64_t i = 0; i < kRingChunkBytes / kSlotBytes; ++i) ASSERT_TRUE(write(stream, i));
    std::thread([&] {
        StreamWriter busy;
        for (std::uint64_t i = 0; i < 3 * kRecordsOfARing; ++i) ASSERT_TRUE(write(busy, i));
    }).join();
    EXPECT_EQ(unfinished->a, 77U);
    StreamWriter::conclude(unfinished, State::complete);
    stream.unfinished = 0;
    for (std::uint64_t i = 0; i < 3 * kRecordsOfARing; ++i) ASSERT_TRUE(write(stream, i));
    EXPECT_EQ(dropped(), 0U);
    EXPECT_NE(unfinished->a, 77U) << "given back once it is finished";
}

TEST_F(SpoolRing, TakesBackWhatThreadsAndProcessesLeaveThatAreGone) {
    for (std::uint64_t i = 0; i < 200; ++i) {
        std::thread([&] {
            StreamWriter stream;
            EXPECT_TRUE(write(stream, i));
        }).join();
    }
    for (std::uint64_t i = 0; i < 50; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            StreamWriter stream;
            _exit(write(stream, 1000 + i) ? 0 : 1);
        }
        int status = -1;
        ASSERT_EQ(waitpid(child, &status, 0), child);
        EXPECT_EQ(status, 0);
    }
    EXPECT_EQ(dropped(), 0U);
}

TEST_F(SpoolRing, TakesBackWhatProcessesLeaveThatNobodyWaitedFor) {
    std::vector<pid_t> children;
    for (std::uint64_t i = 0; i < 3 * kRing / kRingChunkBytes; ++i) {
        children.push_back(fork());
        if (children.back() == 0) {
            prctl(PR_SET_NAME, ") S (");
            StreamWriter stream;
            _exit(write(stream, i) ? 0 : 1);
        }
        siginfo_t ended{};
        ASSERT_EQ(waitid(P_PID, static_cast<id_t>(children.back()), &ended, WEXITED | WNOWAIT), 0);
        EXPECT_EQ(ended.si_status, 0);
    }
    EXPECT_EQ(dropped(), 0U);
    for (const pid_t child : children) EXPECT_EQ(waitpid(child, nullptr, 0), child);
}

TEST_F(SpoolRing, CountsWhatFindsNoChunkBecauseAllAreBeingWritten) {
    constexpr std::size_t kChunks = kRing / kRingChunkBytes;
    prctl(PR_SET_NAME, ") Z (");                     // which is no state
    std::vector<StreamWriter> streams(kChunks + 1);  // all of this thread, which lives
    for (std::size_t i = 0; i < kChunks; ++i) ASSERT_TRUE(write(streams[i], i));
    EXPECT_FALSE(write(streams[kChunks], 99));
    EXPECT_EQ(spool->header().dropped[static_cast<std::size_t>(Drop::size_limit)].load(), 1U);
}

TEST_F(SpoolRing, SparesWhatItCannotTellTheOwnerOf) {
    spool->header().foreign_pids = 1;
    std::thread([&] {
        StreamWriter stream;
        ASSERT_TRUE(write(stream, 7));
    }).join();
    StreamWriter stream;
    for (std::uint64_t i = 0; i < 3 * kRecordsOfARing; ++i) ASSERT_TRUE(write(stream, i));
    bool overwritten = false;
    EXPECT_EQ(read(overwritten)[1], std::vector<std::uint64_t>{7});
}

// The chunks are overwritten again and again under the eyes of a reader: whatever it gets is whole, in order, and told
// once.
TEST_F(SpoolRing, AFollowerNeverTakesTheNewForTheOld) {
    constexpr std::uint64_t kEach = 60 * kRecordsOfARing;
    std::atomic<int> busy{3};
    std::vector<std::thread> writers;
    for (int i = 0; i < 3; ++i) {
        writers.emplace_back([&] {
            StreamWriter stream;
            for (std::uint64_t number = 0; number < kEach; ++number) {
                if (!write(stream, number)) ADD_FAILURE() << "dropped";
            }
            // A chunk of one that is gone is taken because the kernel says so, which a thread sanitizer cannot know.
            for (--busy; busy.load() != 0;) std::this_thread::yield();
        });
    }
    auto reader = SpoolReader::open(spool->path());
    ASSERT_TRUE(reader);
    (*reader)->set_following(true);
    std::vector<StreamCursor> cursors;
    Numbers numbers;
    while (busy.load() != 0) {
        (*reader)->poll();
        read_on(**reader, cursors, numbers);
    }
    for (std::thread &writer : writers) writer.join();
    // Give up on what has been overwritten meanwhile, which takes half a second.
    for (const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(700);
         std::chrono::steady_clock::now() < until;) {
        (*reader)->poll();
        read_on(**reader, cursors, numbers);
    }
    // Of who was done first, the others may have overwritten all before it was looked at.
    EXPECT_TRUE(numbers.size() == 3U || (*reader)->overwritten());
    std::uint64_t newest = 0;
    for (const auto &[stream, list] : numbers) {
        for (std::size_t i = 1; i < list.size(); ++i) ASSERT_LT(list[i - 1], list[i]) << "stream " << stream;
        newest = std::max(newest, list.back());
        std::uint64_t missing = kEach - list.size();
        EXPECT_TRUE(missing == 0 || (*reader)->overwritten()) << missing << " records are missing and nobody says so";
    }
    EXPECT_EQ(newest, kEach - 1);
}

TEST(SpoolRingSize, IsRoundedToWholeChunks) {
    const TempFolder folder;
    const auto spool = std::make_unique<SpoolWriter>();
    ASSERT_EQ(spool->open(folder.path().c_str(), kDefaultLimitBytes, kSmallestRingBytes + 1000), 0);
    EXPECT_TRUE(spool->is_ring());
    EXPECT_EQ(spool->header().ring_bytes, kSmallestRingBytes);
}

}  // namespace
}  // namespace planloop::wire
