#include "lockcore/wire/stream_writer.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "lockcore/spool_reader.h"
#include "tests/support/temp_folder.h"

namespace planloop::wire {
namespace {

using test::TempFolder;

class StreamWriterTest : public ::testing::Test {
  public:
    // A record that can be told from all others and from a torn one: `number` stands in it twice.
    bool write(StreamWriter &stream, const WriterIdentity &who, std::uint64_t number) {
        Record *record = stream.claim(*spool, who);
        if (record == nullptr) return false;
        fill(*record, number);
        stream.publish(record, State::complete);
        return true;
    }
    void fill(Record &record, std::uint64_t number) {
        record.kind = RecordKind::acquire;
        record.mode = Mode::exclusive;
        record.begin = record.end = spool->ticks();
        record.a = number;
        record.b = ~number;
    }

  protected:
    void SetUp() override { ASSERT_EQ(opened, 0); }

    static constexpr std::uint64_t kLimit = std::uint64_t{256} << 20;

    std::uint64_t dropped() const {
        std::uint64_t sum = 0;
        for (const auto &count : spool->header().dropped) sum += count.load();
        return sum;
    }
    std::uint64_t dropped(Drop why) const { return spool->header().dropped[static_cast<std::size_t>(why)].load(); }

    struct Contents {
        std::map<std::uint32_t, std::vector<std::uint64_t>> numbers;  // by process image, in the order of the stream
        std::map<std::uint64_t, std::string> payloads;                // by Record::a
        std::uint64_t records = 0;
        std::uint64_t mixed_up = 0;  // records that are not whole
        SpoolDamage damage;
        std::size_t streams = 0;
    };
    Contents read() const {
        Contents out;
        auto reader = SpoolReader::open(spool->path());
        EXPECT_TRUE(reader) << (reader ? "" : reader.error().message);
        if (!reader) return out;
        for (std::size_t i = 0; i < (*reader)->streams().size(); ++i) {
            StreamCursor cursor(i);
            for (SpoolRecord record; cursor.next(**reader, record);) {
                ++out.records;
                if (record.b != ~record.a) ++out.mixed_up;
                out.numbers[record.process].push_back(record.a);
                if (record.kind == RecordKind::file) out.payloads[record.a] = record.payload;
            }
        }
        out.damage = (*reader)->damage();
        out.streams = (*reader)->streams().size();
        return out;
    }

    static std::vector<std::uint64_t> up_to(std::uint64_t count) {
        std::vector<std::uint64_t> out(count);
        for (std::uint64_t i = 0; i < count; ++i) out[i] = i;
        return out;
    }

    TempFolder folder;
    std::unique_ptr<SpoolWriter> spool = std::make_unique<SpoolWriter>();
    int opened = spool->open(folder.path().c_str(), kLimit);
};

constexpr WriterIdentity kWho{1, 100, 100};
constexpr WriterIdentity kOther{2, 200, 200};
constexpr std::size_t kFirstChunkRecords = kFirstChunkBytes / kSlotBytes - 1;

TEST_F(StreamWriterTest, RecordsComeBackInOrderOverManyChunks) {
    StreamWriter stream;
    constexpr std::uint64_t kRecords = 20'000;
    for (std::uint64_t i = 0; i < kRecords; ++i) ASSERT_TRUE(write(stream, kWho, i));
    const Contents contents = read();
    EXPECT_EQ(contents.numbers.at(1), up_to(kRecords));
    EXPECT_EQ(contents.mixed_up + contents.damage.torn + contents.damage.damaged + dropped(), 0U);
}

TEST_F(StreamWriterTest, WhatIsClaimedButNotPublishedIsNotSeenAndKeepsNothingBack) {
    StreamWriter stream;
    Record *first = stream.claim(*spool, kWho);
    ASSERT_NE(first, nullptr);
    fill(*first, 1);
    ASSERT_TRUE(write(stream, kWho, 2));
    const Contents before = read();
    EXPECT_EQ(before.numbers.at(1), std::vector<std::uint64_t>{2});
    EXPECT_EQ(before.damage.torn, 1U);
    stream.publish(first, State::pending);
    EXPECT_EQ(read().numbers.at(1), (std::vector<std::uint64_t>{1, 2}));
}

TEST_F(StreamWriterTest, APendingRecordIsCompletedInPlace) {
    StreamWriter stream;
    for (const State end : {State::complete, State::annulled, State::abandoned}) {
        Record *record = stream.claim(*spool, kWho);
        ASSERT_NE(record, nullptr);
        fill(*record, 7);
        stream.publish(record, State::pending);
        EXPECT_EQ(commit_state(record->commit), State::pending);
        const std::uint32_t salt = commit_salt(record->commit);
        // The stream may be in another chunk by the time a call comes back.
        for (std::uint64_t i = 0; i < 2 * kLargestChunkBytes / kSlotBytes; ++i) ASSERT_TRUE(write(stream, kOther, i));
        StreamWriter::conclude(record, end);
        EXPECT_EQ(commit_state(record->commit), end);
        EXPECT_EQ(commit_salt(record->commit), salt);
    }
}

TEST_F(StreamWriterTest, TextOfAnyLengthComesBack) {
    StreamWriter stream;
    std::map<std::uint64_t, std::string> expected;
    const std::size_t lengths[] = {0, 1, 55, 56, 57, 111, 112, 113, 3000, 4096, 4097, 20'000, 200'000};
    for (const std::size_t length : lengths) {
        std::string text(length, '\0');
        for (std::size_t i = 0; i < length; ++i) text[i] = static_cast<char>('a' + (i + length) % 26);
        // In pieces, an empty one among them.
        const TextPiece pieces[] = {
            {text.data(), length / 3}, {"", 0}, {text.data() + length / 3, length - length / 3}};
        Record *record = stream.claim_with_text(*spool, kWho, pieces, 3);
        ASSERT_NE(record, nullptr) << length;
        record->kind = RecordKind::file;
        record->a = length;
        record->b = ~record->a;
        stream.publish(record, State::complete);
        expected[length] = text;
    }
    const Contents contents = read();
    EXPECT_EQ(contents.payloads, expected);
    EXPECT_EQ(contents.damage.cut_text + contents.damage.torn + dropped(), 0U);
}

TEST_F(StreamWriterTest, TextThatFitsNoChunkIsDroppedAndOnlyThat) {
    StreamWriter stream;
    const std::string text(kLargestChunkBytes, 'x');
    const TextPiece piece{text.data(), text.size()};
    ASSERT_TRUE(write(stream, kWho, 0));
    EXPECT_EQ(stream.claim_with_text(*spool, kWho, &piece, 1), nullptr);
    EXPECT_EQ(dropped(Drop::too_long), 1U);
    ASSERT_TRUE(write(stream, kWho, 1));
    EXPECT_EQ(read().numbers.at(1), up_to(2));
    EXPECT_EQ(dropped(), 1U);
}

TEST_F(StreamWriterTest, AForkedChildWritesIntoChunksOfItsOwn) {
    StreamWriter stream;
    constexpr std::uint64_t kEach = 5'000;
    for (std::uint64_t i = 0; i < 10; ++i) ASSERT_TRUE(write(stream, kWho, i));
    const pid_t child = fork();
    if (child == 0) {
        stream.forget();
        for (std::uint64_t i = 0; i < kEach; ++i) {
            if (!write(stream, kOther, i)) _exit(1);
        }
        _exit(0);
    }
    for (std::uint64_t i = 10; i < kEach; ++i) ASSERT_TRUE(write(stream, kWho, i));
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
    const Contents contents = read();
    EXPECT_EQ(contents.numbers.at(1), up_to(kEach));
    EXPECT_EQ(contents.numbers.at(2), up_to(kEach));
    EXPECT_EQ(contents.streams, 2U);
    EXPECT_EQ(contents.mixed_up + contents.damage.torn + dropped(), 0U);
}

// The child says after each record that it was published; it is killed wherever it happens to be.
TEST_F(StreamWriterTest, SigkillLosesNoPublishedRecordAndTearsNone) {
    const unsigned seed = std::random_device{}();
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::mt19937 random(seed);
    constexpr std::uint32_t kKills = 60;
    std::vector<std::uint64_t> told(kKills + 1);
    for (std::uint32_t kill_number = 1; kill_number <= kKills; ++kill_number) {
        int pipes[2];
        ASSERT_EQ(pipe(pipes), 0);
        const pid_t child = fork();
        if (child == 0) {
            StreamWriter stream;
            for (std::uint64_t i = 0;; ++i) {
                if (!write(stream, {kill_number, getpid(), getpid()}, i)) _exit(1);
                if (::write(pipes[1], &i, sizeof(i)) != sizeof(i)) _exit(2);
            }
        }
        close(pipes[1]);
        const std::uint64_t enough = random() % 3000;
        std::uint64_t number = 0;
        while (::read(pipes[0], &number, sizeof(number)) == ssize_t{sizeof(number)}) {
            told[kill_number] = number + 1;
            if (number == enough) kill(child, SIGKILL);
        }
        close(pipes[0]);
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status)) << status;
        ASSERT_GT(told[kill_number], enough);
    }
    const Contents contents = read();
    for (std::uint32_t i = 1; i <= kKills; ++i) {
        const auto &numbers = contents.numbers.at(i);
        EXPECT_EQ(numbers, up_to(numbers.size())) << "kill " << i;
        EXPECT_GE(numbers.size(), told[i]) << "kill " << i;
        EXPECT_LE(numbers.size(), told[i] + 1) << "kill " << i;  // published, and killed before it was told
    }
    EXPECT_EQ(contents.mixed_up + contents.damage.damaged, 0U);
}

TEST_F(StreamWriterTest, ThousandsOfThreadsUseAPageEach) {
    struct Shared {
        StreamWriterTest *test;
        std::atomic<std::uint64_t> next{0};
        std::atomic<std::uint64_t> failed{0};
    } shared{this};
    const auto record_one = [](void *argument) -> void * {
        auto &all = *static_cast<Shared *>(argument);
        StreamWriter stream;
        for (std::size_t i = 0; i < kFirstChunkRecords; ++i) {
            if (!all.test->write(stream, kWho, all.next.fetch_add(1))) all.failed.fetch_add(1);
        }
        return nullptr;
    };
    constexpr std::size_t kThreads = 3000;
    pthread_attr_t small;
    pthread_attr_init(&small);
    pthread_attr_setstacksize(&small, 64 * 1024);
    std::vector<pthread_t> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
        pthread_t thread{};
        if (pthread_create(&thread, &small, record_one, &shared) != 0) {
            ASSERT_GT(threads.size(), 100U) << "no threads to test with";
            break;
        }
        threads.push_back(thread);
    }
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    pthread_attr_destroy(&small);
    EXPECT_EQ(spool->header().next_offset.load(), (threads.size() + 1) * kPageBytes);
    EXPECT_EQ(shared.failed.load() + dropped(), 0U);
    Contents contents = read();
    EXPECT_EQ(contents.streams, threads.size());
    auto &numbers = contents.numbers.at(1);
    std::sort(numbers.begin(), numbers.end());
    EXPECT_EQ(numbers, up_to(threads.size() * kFirstChunkRecords));
}

TEST_F(StreamWriterTest, UsesTheLastPageBelowTheLimitThenCountsEachDropByItsReason) {
    constexpr std::uint64_t kPages = 100;
    spool->header().limit_bytes = kPages * kPageBytes;
    StreamWriter stream;
    std::uint64_t written = 0;
    while (write(stream, kWho, written)) ++written;
    EXPECT_EQ(spool->header().next_offset.load(), kPages * kPageBytes);
    for (int i = 0; i < 999; ++i) EXPECT_FALSE(write(stream, kWho, 0));
    EXPECT_EQ(dropped(Drop::size_limit), 1000U);
    EXPECT_EQ(dropped(), 1000U);
    EXPECT_EQ(read().numbers.at(1), up_to(written));
}

// What signal handlers record while the thread below them is in the middle of a record of its own.
StreamWriter *interrupted = nullptr;
SpoolWriter *handlers_spool = nullptr;
std::uint64_t handlers_next = 0;
std::uint64_t handlers_burst = 0;

void record_in_handler(int) {
    for (std::uint64_t i = 0; i < handlers_burst; ++i) {
        Record *record = interrupted->claim(*handlers_spool, kWho);
        if (record == nullptr) return;
        record->kind = RecordKind::acquire;
        record->mode = Mode::exclusive;
        record->begin = record->end = handlers_spool->ticks();
        record->a = handlers_next++;
        record->b = ~record->a;
        interrupted->publish(record, State::complete);
    }
}

class StreamWriterSignals : public StreamWriterTest {
  public:
    StreamWriterSignals() {
        interrupted = &stream;
        handlers_spool = spool.get();
        handlers_next = kHandlers;
        struct sigaction action {};
        action.sa_handler = record_in_handler;
        action.sa_flags = SA_RESTART;
        sigaction(SIGALRM, &action, &before);
    }
    ~StreamWriterSignals() override { sigaction(SIGALRM, &before, nullptr); }

  protected:
    static constexpr std::uint64_t kHandlers = std::uint64_t{1} << 40;  // their numbers begin here
    StreamWriter stream;
    struct sigaction before {};
};

TEST_F(StreamWriterSignals, AHandlerMayFillTheChunkBetweenAClaimAndItsPublication) {
    for (std::uint64_t i = 0; i < 50; ++i) {
        Record *record = stream.claim(*spool, kWho);
        ASSERT_NE(record, nullptr);
        fill(*record, i);
        handlers_burst = i * 100;  // the later ones go through several chunks
        raise(SIGALRM);
        stream.publish(record, State::complete);
    }
    const Contents contents = read();
    EXPECT_EQ(contents.damage.torn + contents.mixed_up + dropped(), 0U);
    EXPECT_EQ(contents.records, 50 + (handlers_next - kHandlers));
}

TEST_F(StreamWriterSignals, AHandlerMayFillTheChunkWhileTextIsWritten) {
    handlers_burst = 200;
    std::map<std::uint64_t, std::string> expected;
    for (std::uint64_t i = 0; i < 20; ++i) {
        const std::string text(100 + i, static_cast<char>('a' + i));
        const TextPiece piece{text.data(), text.size()};
        Record *record = stream.claim_with_text(*spool, kWho, &piece, 1);
        ASSERT_NE(record, nullptr);
        raise(SIGALRM);
        record->kind = RecordKind::file;
        record->a = i;
        record->b = ~i;
        stream.publish(record, State::complete);
        expected[i] = text;
    }
    const Contents contents = read();
    EXPECT_EQ(contents.payloads, expected);
    EXPECT_EQ(contents.damage.torn + contents.damage.cut_text + dropped(), 0U);
}

TEST_F(StreamWriterSignals, AStormOfHandlersTearsNothingAndGivesNoSlotTwice) {
    handlers_burst = 7;
    const itimerval storm{{0, 30}, {0, 30}};
    ASSERT_EQ(setitimer(ITIMER_REAL, &storm, nullptr), 0);
    constexpr std::uint64_t kMostRecords = 1'500'000;
    constexpr std::uint64_t kHandlerRecords = 20'000;
    std::uint64_t written = 0;
    while (written < kMostRecords && (written < 100'000 || handlers_next - kHandlers < kHandlerRecords)) {
        if (!write(stream, kWho, written)) break;
        ++written;
    }
    const itimerval calm{};
    setitimer(ITIMER_REAL, &calm, nullptr);
    const std::uint64_t by_handlers = handlers_next - kHandlers;
    EXPECT_GT(by_handlers, 100U) << "no storm";

    const Contents contents = read();
    std::vector<std::uint64_t> mine, theirs;
    for (const std::uint64_t number : contents.numbers.at(1)) {
        (number < kHandlers ? mine : theirs).push_back(number < kHandlers ? number : number - kHandlers);
    }
    EXPECT_EQ(mine, up_to(written));
    EXPECT_EQ(theirs, up_to(by_handlers));
    EXPECT_EQ(contents.mixed_up + contents.damage.torn + contents.damage.damaged + dropped(), 0U);
}

}  // namespace
}  // namespace planloop::wire
