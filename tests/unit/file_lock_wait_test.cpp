// Waits for a FileLock: how they end, what they cost, and what is left of those that were given up.
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <chrono>
#include <iostream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <system_error>
#include <thread>

#include "lockcore/file_lock.h"
#include "tests/support/file_lock_fixture.h"
#include "tests/support/refused_calls.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::Line;
using testing::refuse;
using testing::wait_until_kernel_says_waiting;

class FileLockWait : public testing::FileLockTest {};

TEST_F(FileLockWait, AWaitEndsWhenItsTimeIsUpAndNotBefore) {
    Child holder([&](Line &line) {
        FileLock lock(path_);
        lock.lock();
        line.tell('h');
        line.hear();
        return 0;
    });
    ASSERT_EQ(holder.hear(), 'h');
    FileLock lock(path_);
    const auto begun = std::chrono::steady_clock::now();
    EXPECT_FALSE(lock.try_lock_for(60ms));
    EXPECT_GE(std::chrono::steady_clock::now() - begun, 60ms);
    EXPECT_FALSE(lock.try_lock_shared_until(std::chrono::system_clock::now() + 5ms));
    holder.tell('e');
    holder.status();
    EXPECT_TRUE(lock.try_lock()) << "nothing may be left of the waits that were given up";
    lock.unlock();
    EXPECT_TRUE(free_for_others());
}

TEST_F(FileLockWait, AWaitWithATimeOutGetsTheLockWhenItComes) {
    Child holder([&](Line &line) {
        FileLock lock(path_);
        lock.lock();
        line.tell('h');
        wait_until_kernel_says_waiting(::getppid(), path_);
        lock.unlock();
        line.hear();
        return 0;
    });
    ASSERT_EQ(holder.hear(), 'h');
    FileLock lock(path_);
    EXPECT_TRUE(lock.try_lock_for(10min));
    EXPECT_FALSE(free_for_others());
    lock.unlock();
    holder.tell('e');
}

TEST_F(FileLockWait, WaitingCostsNoProcessorTime) {
    Child holder([&](Line &line) {
        FileLock lock(path_);
        lock.lock();
        line.tell('h');
        line.hear();
        return 0;
    });
    ASSERT_EQ(holder.hear(), 'h');
    rusage before{};
    rusage after{};
    FileLock lock(path_);
    ::getrusage(RUSAGE_SELF, &before);
    EXPECT_FALSE(lock.try_lock_for(400ms));
    ::getrusage(RUSAGE_SELF, &after);
    EXPECT_LT(after.ru_nvcsw - before.ru_nvcsw, 20) << "it should sleep, not look again and again";
}

TEST_F(FileLockWait, TheKernelsDeadlockIsAnErrorThatSaysSo) {
    const std::string second_path = folder_.file("second");
    Child other([&](Line &line) {
        FileLock first(path_);
        FileLock second(second_path);
        second.lock();
        line.tell('h');
        line.hear();
        first.lock();  // waits for the parent
        return 0;
    });
    FileLock first(path_);
    FileLock second(second_path);
    ASSERT_EQ(other.hear(), 'h');
    first.lock();
    other.tell('g');
    wait_until_kernel_says_waiting(other.pid(), path_);
    try {
        second.lock();
        FAIL() << "the ring is closed";
    } catch (const std::system_error &error) {
        EXPECT_EQ(error.code().value(), EDEADLK);
        EXPECT_NE(std::string(error.what()).find("wait for a lock of this process"), std::string::npos);
    }
    first.unlock();
    EXPECT_EQ(other.status(), 0);
}

TEST_F(FileLockWait, AWaitThatIsInterruptedBySignalsGoesOn) {
    struct sigaction action {};
    action.sa_handler = [](int) {};
    struct sigaction before {};
    ::sigaction(SIGUSR1, &action, &before);
    Child holder([&](Line &line) {
        FileLock lock(path_);
        lock.lock();
        line.tell('h');
        const pid_t waiter = ::getppid();
        for (int i = 0; i < 20; ++i) {
            wait_until_kernel_says_waiting(waiter, path_);
            ::kill(waiter, SIGUSR1);
        }
        lock.unlock();
        return 0;
    });
    ASSERT_EQ(holder.hear(), 'h');
    FileLock lock(path_);
    lock.lock();
    lock.unlock();
    EXPECT_EQ(holder.status(), 0);
    ::sigaction(SIGUSR1, &before, nullptr);
}

TEST_F(FileLockWait, ForTheLongestTimesIsForEverAndForNegativeOnesIsATry) {
    using boost::posix_time::ptime;
    using System = std::chrono::system_clock;
    struct Case {
        const char *what;
        bool (*wait)(FileLock &);
        bool gets_it;
    };
    const Case cases[] = {
        {"hours::max", [](FileLock &l) { return l.try_lock_for(std::chrono::hours::max()); }, true},
        {"steady max", [](FileLock &l) { return l.try_lock_until(FileLock::Clock::time_point::max()); }, true},
        {"system max", [](FileLock &l) { return l.try_lock_until(System::time_point::max()); }, true},
        {"ptime max", [](FileLock &l) { return l.timed_lock(ptime(boost::date_time::max_date_time)); }, true},
        {"ptime infinite", [](FileLock &l) { return l.timed_lock(ptime(boost::date_time::pos_infin)); }, true},
        {"hours::min", [](FileLock &l) { return l.try_lock_for(std::chrono::hours::min()); }, false},
        {"system min", [](FileLock &l) { return l.try_lock_until(System::time_point::min()); }, false},
        {"ptime over", [](FileLock &l) { return l.timed_lock(ptime(boost::date_time::neg_infin)); }, false},
        {"ptime none", [](FileLock &l) { return l.timed_lock(ptime(boost::date_time::not_a_date_time)); }, false},
    };
    for (const Case &one : cases) {
        const auto other = holder();
        FileLock lock(path_);
        std::thread giver([&] {
            if (!one.gets_it) return;
            wait_until_kernel_says_waiting(::getpid(), path_);
            other->tell('u');
        });
        const bool got = one.wait(lock);
        giver.join();
        EXPECT_EQ(got, one.gets_it) << one.what;
        if (got) lock.unlock();
    }
}

TEST_F(FileLockWait, WhoIsCancelledLeavesWithoutTheLock) {
    struct Case {
        const char *what;
        void (*wait)(FileLock &);
    };
    const Case cases[] = {
        {"lock", [](FileLock &l) { l.lock(), l.unlock(); }},
        {"lock_shared", [](FileLock &l) { l.lock_shared(), l.unlock_shared(); }},
        {"try_lock_for", [](FileLock &l) { l.try_lock_for(1h) ? l.unlock() : void(); }},
        {"try_lock_shared_for", [](FileLock &l) { l.try_lock_shared_for(1h) ? l.unlock_shared() : void(); }},
    };
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 random(seed);
    for (const Case &one : cases) {
        for (int turn = 0; turn < 40; ++turn) {
            // While it certainly waits, and about when it gets the lock.
            const bool certainly_waits = turn == 0;
            const auto other = holder();
            FileLock lock(path_);
            std::thread waiter([&] { one.wait(lock); });
            wait_until_kernel_says_waiting(::getpid(), path_);
            if (!certainly_waits) other->tell('u');
            std::this_thread::sleep_for(std::chrono::microseconds(random() % 60));  // any moment is right
            ::pthread_cancel(waiter.native_handle());
            waiter.join();
            if (certainly_waits) other->tell('u');
            ASSERT_EQ(other->hear(), 'u');
            ASSERT_TRUE(free_for_others()) << one.what << ", turn " << turn;
            ASSERT_TRUE(lock.try_lock()) << one.what << ", turn " << turn;
            lock.unlock();
        }
    }
}

TEST_F(FileLockWait, WhereNoThreadCanBeStartedIsAnErrorThatSaysIt) {
    const auto other = holder();
    Child waiter([&](Line &) {
        FileLock lock(path_);
        if (!refuse({SYS_clone, SYS_clone3}, EAGAIN)) return 10;
        if (lock.try_lock() || lock.try_lock_for(0s)) return 1;
        try {
            static_cast<void>(lock.try_lock_for(1h));
        } catch (const std::system_error &error) {
            const std::string what = error.what();
            return error.code().value() == ENOMEM && what.find("no thread") != std::string::npos ? 0 : 2;
        }
        return 3;
    });
    EXPECT_EQ(waiter.status(), 0);
}

}  // namespace
}  // namespace planloop
