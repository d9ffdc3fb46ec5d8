#include "lockcore/wire/share_table.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "tests/support/temp_folder.h"

namespace planloop::wire {
namespace {

class ShareTableTest : public ::testing::Test {
  protected:
    void SetUp() override {
        ASSERT_EQ(table_.open(spool().c_str(), true), 0);
        file_ = ::open((folder_ / "lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
        ASSERT_GE(file_, 0);
        ASSERT_EQ(::fstat(file_, &status_), 0);
    }
    void TearDown() override { ::close(file_); }

    std::string spool() const { return folder_ / "locks.spool"; }
    ShareKey key(int fd, std::int32_t pid = ::getpid()) const {
        return {status_.st_dev, status_.st_ino, own_pid_namespace(), pid, fd};
    }
    std::uint32_t found(int fd) {
        const Share *row = table_.find(key(fd));
        return row == nullptr ? 0 : row->description.load();
    }

    test::TempFolder folder_;
    ShareTable table_;
    int file_ = -1;
    struct stat status_ {};
};

TEST_F(ShareTableTest, IsNotMadeByWhoOnlyLooks) {
    ShareTable other;
    EXPECT_EQ(other.open((folder_ / "none.spool").c_str(), false), -ENOENT);
    EXPECT_FALSE(other.is_open());
    EXPECT_EQ(other.open(spool().c_str(), false), 0);
}

TEST_F(ShareTableTest, RefusesAFileThatIsNoTable) {
    const std::string path = folder_ / "foreign.spool";
    const int fd = ::open((path + ".shares").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    ASSERT_EQ(::ftruncate(fd, 1 << 20), 0);
    ::close(fd);
    ShareTable other;
    EXPECT_EQ(other.open(path.c_str(), true), -EPROTO);
}

TEST_F(ShareTableTest, FindsTheSameDescriptionUnderAnotherNumberOnly) {
    table_.put(key(file_), 7, 1, true);
    const int copy = ::dup(file_);
    const int another = ::open((folder_ / "lock").c_str(), O_RDWR | O_CLOEXEC);
    EXPECT_EQ(found(copy), 7U);
    EXPECT_EQ(found(another), 0U);
    ::close(copy);
    ::close(another);
}

TEST_F(ShareTableTest, FindsItInAChild) {
    table_.put(key(file_), 7, 1, true);
    const pid_t child = ::fork();
    if (child == 0) ::_exit(static_cast<int>(found(file_)));
    int wait_status = 0;
    ASSERT_EQ(::waitpid(child, &wait_status, 0), child);
    EXPECT_EQ(WEXITSTATUS(wait_status), 7);
}

TEST_F(ShareTableTest, ForgetsADescriptorThatWasLetGoOrClosedUnseen) {
    const int copy = ::dup(file_);
    const int seen = ::dup(file_);
    table_.put(key(seen), 7, 1, true);
    EXPECT_EQ(found(copy), 7U);
    table_.release(key(seen));
    EXPECT_EQ(found(copy), 0U);
    const int unseen = ::dup(file_);
    table_.put(key(unseen), 8, 1, true);
    ::close(unseen);
    EXPECT_EQ(found(copy), 0U);
    ::close(copy);
    ::close(seen);
}

TEST_F(ShareTableTest, TheDeadTakerOfAFlockIsAWitnessButTheLivingIsNot) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
    table_.put(key(3, child), 9, 1, true);
    const Share *witness = table_.find_taker(key(file_), child);
    ASSERT_NE(witness, nullptr);
    EXPECT_EQ(witness->description.load(), 9U);

    const int another = ::open((folder_ / "lock").c_str(), O_RDWR | O_CLOEXEC);
    table_.put(key(another), 10, 1, true);
    EXPECT_EQ(table_.find_taker(key(file_), ::getpid()), nullptr) << "it may have locked another description";
    ::close(another);
}

TEST_F(ShareTableTest, ALivingTakerThatLetGoIsAWitness) {
    table_.put(key(1000), 9, 1, true);
    EXPECT_EQ(table_.find_taker(key(file_), ::getpid()), nullptr);
    table_.release(key(1000));
    const Share *witness = table_.find_taker(key(file_), ::getpid());
    ASSERT_NE(witness, nullptr);
    EXPECT_EQ(witness->description.load(), 9U);
}

TEST_F(ShareTableTest, TheDeadTakerOfSeveralDescriptionsIsNoWitness) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
    table_.put(key(3, child), 9, 1, true);
    table_.put(key(4, child), 9, 1, true);
    ASSERT_NE(table_.find_taker(key(file_), child), nullptr) << "two numbers of one";
    const int another = ::open((folder_ / "lock").c_str(), O_RDWR | O_CLOEXEC);
    table_.put(key(another), 9, 1, true);
    EXPECT_EQ(table_.find_taker(key(file_), child), nullptr) << "who has it still has another one";
    ::close(another);
    ASSERT_NE(table_.find_taker(key(file_), child), nullptr);
    table_.put(key(5, child), 10, 1, true);
    EXPECT_EQ(table_.find_taker(key(file_), child), nullptr) << "it may be either";
}

TEST_F(ShareTableTest, ANumberMeansWhatItMeantLast) {
    table_.put(key(file_), 7, 1, true);
    table_.put(key(file_), 8, 2, false);
    EXPECT_EQ(found(file_), 8U);
    int rows = 0;
    table_.for_each([&](const Share &) { ++rows; });
    EXPECT_EQ(rows, 1);
}

TEST_F(ShareTableTest, SaysWhenItIsFullAndUsesTheRowsOfThoseWhoLetGo) {
    for (std::uint32_t i = 0; i < ShareTable::kRows; ++i) {
        ASSERT_NE(table_.put(key(static_cast<int>(1000 + i)), i + 1, 1, false), nullptr) << i;
    }
    EXPECT_EQ(table_.put(key(999), 1, 1, false), nullptr);
    table_.release(key(1000));
    EXPECT_NE(table_.put(key(999), 1, 1, false), nullptr);
    EXPECT_EQ(table_.put(key(998), 1, 1, false), nullptr);
}

TEST_F(ShareTableTest, RowsOfTheKilledAreFreedBeforeItIsFull) {
    const pid_t child = ::fork();
    if (child == 0) ::_exit(0);
    ::waitpid(child, nullptr, 0);
    for (std::uint32_t i = 0; i < 10 * ShareTable::kRows; ++i) {
        ASSERT_NE(table_.put(key(static_cast<int>(i), child), i + 1, 1, false), nullptr) << i;
    }
}

TEST_F(ShareTableTest, WhoDiesInItsTurnIsPassedOver) {
    const pid_t child = ::fork();
    if (child == 0) {
        const ShareTable::Turn turn(table_);
        ::_exit(0);
    }
    ::waitpid(child, nullptr, 0);
    const ShareTable::Turn turn(table_);
    EXPECT_NE(table_.put(key(file_), 7, 1, true), nullptr);
}

}  // namespace
}  // namespace planloop::wire
