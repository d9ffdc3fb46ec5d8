#include "lockcore/file_lock.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <atomic>
#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/interprocess/sync/sharable_lock.hpp>
#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>
#include <random>
#include <shared_mutex>
#include <system_error>
#include <thread>
#include <vector>

#include "tests/support/file_lock_fixture.h"
#include "tests/support/refused_calls.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::FileLockTest;
using testing::Line;
using testing::refuse;
using testing::wait_until_kernel_says_waiting;

TEST_F(FileLockTest, ExcludesOtherProcessesUntilItIsUnlocked) {
    FileLock lock(path_);
    EXPECT_TRUE(free_for_others());
    lock.lock();
    EXPECT_FALSE(free_for_others());
    EXPECT_FALSE(free_for_others(true));
    lock.unlock();
    EXPECT_TRUE(free_for_others());
}

TEST_F(FileLockTest, MakesItsFilePrivately) {
    const FileLock lock(path_);
    struct stat status {};
    ASSERT_EQ(::stat(path_.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
}

TEST_F(FileLockTest, SharedHoldersExcludeExclusiveOnesOnly) {
    FileLock lock(path_);
    FileLock again(path_);
    lock.lock_shared();
    again.lock_shared();
    EXPECT_TRUE(free_for_others(true));
    EXPECT_FALSE(free_for_others());
    lock.unlock_shared();
    EXPECT_FALSE(free_for_others()) << "the second shared holder of the process is still there";
    again.unlock_shared();
    EXPECT_TRUE(free_for_others());
}

TEST_F(FileLockTest, ThreadsOfOneProcessExcludeEachOther) {
    constexpr int kThreads = 4;
    constexpr int kTurns = 2000;
    int inside = 0;
    long total = 0;
    std::atomic<bool> together = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < kThreads; ++i) {
        threads.emplace_back([&] {
            FileLock lock(path_);
            for (int turn = 0; turn < kTurns; ++turn) {
                const std::lock_guard guard(lock);
                if (++inside != 1) together = true;
                ++total;
                --inside;
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT_FALSE(together);
    EXPECT_EQ(total, kThreads * kTurns);
}

// Closing any descriptor of the file drops a POSIX lock: fcntl(2).
TEST_F(FileLockTest, IsKeptWhenTheSameFileIsOpenedAndClosedElsewhere) {
    FileLock lock(path_);
    const std::string second_name = folder_.file("hard-link");
    ASSERT_EQ(::link(path_.c_str(), second_name.c_str()), 0);
    lock.lock();
    { const FileLock elsewhere(path_); }
    EXPECT_FALSE(free_for_others());
    { const FileLock elsewhere(second_name); }
    EXPECT_FALSE(free_for_others());
    lock.unlock();
}

TEST_F(FileLockTest, ClosesItsDescriptorWithItsLastObjectAndOnExec) {
    const auto descriptors = [&] {
        std::vector<int> found;
        struct stat wanted {};
        struct stat status {};
        ::stat(path_.c_str(), &wanted);
        for (int fd = 0; fd < 256; ++fd) {
            if (::fstat(fd, &status) == 0 && status.st_ino == wanted.st_ino) found.push_back(fd);
        }
        return found;
    };
    {
        const FileLock one(path_);
        const FileLock two(path_);
        ASSERT_EQ(descriptors().size(), 1u);
        EXPECT_EQ(::fcntl(descriptors().front(), F_GETFD) & FD_CLOEXEC, FD_CLOEXEC);
    }
    EXPECT_TRUE(descriptors().empty());
}

TEST_F(FileLockTest, ServesTheGuardsOfTheStandardLibraryAndOfBoost) {
    using boost::posix_time::microsec_clock;
    using boost::posix_time::milliseconds;
    FileLock lock(path_);
    {
        const std::unique_lock guard(lock, 1s);
        EXPECT_TRUE(guard.owns_lock());
        EXPECT_FALSE(free_for_others());
    }
    {
        const std::shared_lock guard(lock);
        EXPECT_TRUE(free_for_others(true));
        EXPECT_FALSE(free_for_others());
    }
    {
        const boost::interprocess::scoped_lock<FileLock> guard(
            lock, boost::posix_time::ptime(microsec_clock::universal_time() + milliseconds(500)));
        EXPECT_TRUE(guard.owns());
        EXPECT_FALSE(free_for_others());
    }
    {
        const boost::interprocess::sharable_lock<FileLock> guard(lock);
        EXPECT_FALSE(free_for_others());
    }
    EXPECT_TRUE(lock.timed_lock(boost::posix_time::ptime(boost::posix_time::pos_infin)));
    lock.unlock();
    EXPECT_TRUE(free_for_others());
}

TEST_F(FileLockTest, AThreadThatAsksForWhatItHoldsGetsAnError) {
    FileLock lock(path_);
    FileLock same(path_);
    lock.lock();
    EXPECT_FALSE(same.try_lock());
    try {
        same.lock();
        FAIL() << "it can only wait for itself";
    } catch (const std::system_error &error) {
        EXPECT_EQ(error.code().value(), EDEADLK);
        EXPECT_NE(std::string(error.what()).find("never end"), std::string::npos) << error.what();
    }
    EXPECT_FALSE(free_for_others());
    lock.unlock();
}

TEST_F(FileLockTest, AForkedChildHoldsNothingAndMayUseTheObject) {
    FileLock lock(path_);
    lock.lock();
    Child child([&](Line &line) {
        if (lock.try_lock()) return 1;
        lock.unlock();  // as the guard of a parent's frame would
        line.tell('t');
        lock.lock();
        return 0;
    });
    ASSERT_EQ(child.hear(), 't');
    wait_until_kernel_says_waiting(child.pid(), path_);
    lock.unlock();
    EXPECT_EQ(child.status(), 0);
}

TEST_F(FileLockTest, PathsThatAreNoLockFilesAreErrorsThatSayIt) {
    const std::string link = folder_.file("link");
    ASSERT_EQ(::symlink("/nonexistent/target", link.c_str()), 0);
    struct Case {
        std::string path;
        std::string says;
    };
    const Case cases[] = {
        {folder_.path(), "it is a folder"},
        {link, "it is a link to nothing"},
        {folder_.file("missing/lock"), "No such file"},
        {folder_.file("lock") + "/below", "Not a directory"},
        {folder_.file(std::string(300, 'n')), "too long"},
        {"", "No such file"},
    };
    std::ofstream(path_).put('x');
    for (const Case &one : cases) {
        const auto opened = FileLock::open(one.path);
        ASSERT_FALSE(opened) << one.path;
        EXPECT_NE(opened.error().message.find(one.says), std::string::npos) << opened.error().message;
        EXPECT_THROW(FileLock lock(one.path), std::system_error);
    }
    struct stat status {};
    EXPECT_NE(::lstat("/nonexistent/target", &status), 0);
    const std::string good_link = folder_.file("good-link");
    ASSERT_EQ(::symlink(path_.c_str(), good_link.c_str()), 0);
    EXPECT_TRUE(FileLock::open(good_link)) << "a link to a file is a name like any other";
}

// A file system without locks is not at hand on every machine; a system call filter gives its answer.
TEST_F(FileLockTest, AFileSystemWithoutLocksIsAnErrorThatSaysIt) {
    for (const int refusal : {ENOLCK, EOPNOTSUPP}) {
        Child child([&](Line &) {
            FileLock lock(path_);
            if (!refuse({SYS_fcntl}, refusal, {F_SETLKW, F_SETLK})) return 10;
            int right = 0;
            const auto says_so = [&](auto attempt) {
                try {
                    attempt();
                } catch (const std::system_error &error) {
                    if (error.code().value() == refusal &&
                        std::string(error.what()).find("file system has no locks") != std::string::npos) {
                        ++right;
                    }
                }
            };
            says_so([&] { lock.lock(); });
            says_so([&] { lock.try_lock(); });
            says_so([&] { static_cast<void>(lock.try_lock_for(1s)); });
            says_so([&] { lock.lock_shared(); });
            return right == 4 ? 0 : 1;
        });
        EXPECT_EQ(child.status(), 0) << refusal;
    }
}

// Processes and threads that lock, try and give up at random add to one number in a file.
TEST_F(FileLockTest, NothingIsLostUnderRandomWaitsAndTimeOuts) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    const std::string number = folder_.file("number");
    std::ofstream(number) << 0;
    const auto add_one = [&] {
        long value = 0;
        std::ifstream(number) >> value;
        std::ofstream(number) << value + 1;
    };
    const auto work = [&](unsigned own_seed) {
        std::mt19937 random(own_seed);
        FileLock lock(path_);
        int added = 0;
        for (int turn = 0; turn < 150; ++turn) {
            switch (random() % 3) {
                case 0:
                    lock.lock();
                    break;
                case 1:
                    if (!lock.try_lock()) continue;
                    break;
                default:
                    if (!lock.try_lock_for(std::chrono::microseconds(random() % 800))) continue;
            }
            add_one();
            ++added;
            lock.unlock();
        }
        return added;
    };
    std::vector<std::unique_ptr<Child>> children;
    for (unsigned child = 0; child < 3; ++child) {
        children.push_back(std::make_unique<Child>([&, child](Line &line) {
            int added[2] = {};
            std::thread second([&] { added[1] = work(seed + child * 2 + 1); });
            added[0] = work(seed + child * 2);
            second.join();
            const int sum = added[0] + added[1];
            return ::write(line.fd(), &sum, sizeof(sum)) == sizeof(sum) ? 0 : 1;
        }));
    }
    long expected = 0;
    for (auto &child : children) {
        int sum = 0;
        ASSERT_EQ(::read(child->fd(), &sum, sizeof(sum)), static_cast<ssize_t>(sizeof(sum)));
        expected += sum;
        EXPECT_EQ(child->status(), 0);
    }
    long value = 0;
    std::ifstream(number) >> value;
    EXPECT_EQ(value, expected);
    EXPECT_GT(value, 0);
}

// A descriptor that is still to be closed when the file is opened anew would take the new one's lock with it.
TEST_F(FileLockTest, IsKeptWhenTheLastOtherUserLeavesAtTheSameTime) {
    FileLock{path_};
    // Descriptors of this kind see the process's own POSIX lock, and drop nothing as long as they stay open.
    const int probe = ::open(path_.c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(probe, 0);
    std::atomic<bool> over = false;
    std::vector<std::thread> others;
    for (int i = 0; i < 3; ++i) {
        others.emplace_back([&] {
            while (!over) FileLock{path_};
        });
    }
    int lost = 0;
    for (int turn = 0; turn < 20'000; ++turn) {
        FileLock lock(path_);
        const std::lock_guard guard(lock);
        struct flock whole {};
        whole.l_type = F_WRLCK;
        if (::fcntl(probe, F_OFD_GETLK, &whole) != 0 || whole.l_type == F_UNLCK) ++lost;
    }
    over = true;
    for (std::thread &other : others) other.join();
    EXPECT_EQ(lost, 0);
    ::close(probe);
}

}  // namespace
}  // namespace planloop
