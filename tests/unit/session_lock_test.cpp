#include "lockcore/session_lock.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <fstream>
#include <iostream>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "lockcore/operation_trace.h"
#include "tests/support/session_lock_fixture.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::Line;
using testing::SessionLockTest;

TEST_F(SessionLockTest, ShowsItsHolderWhileItIsHeldAndNothingAfter) {
    SessionLock lock(session_, {.operation = "update"});
    lock.lock();
    const LockQueue queue = read_lock_queue(session_);
    ASSERT_TRUE(queue.holder);
    EXPECT_EQ(queue.holder->pid(), ::getpid());
    EXPECT_EQ(queue.holder->operation, "update");
    EXPECT_LT(std::llabs(queue.holder->since_utc_ns - utc_now_ns()), 60'000'000'000);
    EXPECT_TRUE(queue.waiting.empty());
    EXPECT_TRUE(exists(".lock"));
    lock.unlock();
    EXPECT_FALSE(exists(".lock"));
    EXPECT_FALSE(exists(".lock_info"));
    EXPECT_FALSE(read_lock_queue(session_).holder);
    EXPECT_EQ(names_in(".lock_queue"), (std::set<std::string>{}));
    EXPECT_EQ(names_in(".lock_wait"), (std::set<std::string>{"guard", "issued", "issuing"}));
}

TEST_F(SessionLockTest, ServesProcessesInTheOrderInWhichTheyCame) {
    SessionLock lock(session_, {.operation = "first"});
    lock.lock();
    std::vector<std::unique_ptr<Child>> waiters;
    for (int i = 0; i < 6; ++i) {
        waiters.push_back(queuer());
        ASSERT_EQ(waiters.back()->hear(), 'q');
    }
    const LockQueue queue = read_lock_queue(session_);
    ASSERT_EQ(queue.waiting.size(), 6u);
    for (std::size_t i = 0; i < waiters.size(); ++i) EXPECT_EQ(queue.waiting[i].pid, waiters[i]->pid());
    lock.unlock();
    for (auto &waiter : waiters) {
        ASSERT_EQ(hear_other_than(*waiter, 'q'), 'h');
        EXPECT_EQ(read_lock_queue(session_).holder->pid(), waiter->pid());
        waiter->tell('l');
    }
}

TEST_F(SessionLockTest, ExclusionHoldsWhereTheOrderIsLost) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    for (const std::string &name : names_in(".lock_wait")) {
        if (name != "guard") ::unlink(in_session(".lock_wait/" + name).c_str());
    }
    SessionLock lock(session_);
    EXPECT_FALSE(lock.try_lock_for(60ms));
    EXPECT_EQ(read_lock_queue(session_).holder->pid(), holder->pid());
    holder->tell('l');
    EXPECT_TRUE(lock.try_lock_for(10s));
}

TEST_F(SessionLockTest, AKilledHolderOrWaiterIsPassedOver) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    auto first = queuer();
    ASSERT_EQ(first->hear(), 'q');
    auto second = queuer();
    ASSERT_EQ(second->hear(), 'q');
    auto third = queuer();
    ASSERT_EQ(third->hear(), 'q');
    second->kill();  // waits, and has somebody who waits for it
    holder->kill();  // leaves .lock, .lock_info and its entry
    ASSERT_EQ(hear_other_than(*first, 'q'), 'h');
    EXPECT_EQ(read_lock_queue(session_).holder->pid(), first->pid());
    first->tell('l');
    ASSERT_EQ(hear_other_than(*third, 'q'), 'h');
    EXPECT_TRUE(read_lock_queue(session_).waiting.empty()) << "entries of the dead are removed";
    EXPECT_NE(log().find("took over the lock"), std::string::npos);
}

TEST_F(SessionLockTest, GivesUpInTimeAndSaysWhoWasInTheWay) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    SessionLock lock(session_, {.operation = "late", .time_out = 30ms});
    const auto begun = std::chrono::steady_clock::now();
    try {
        lock.lock();
        FAIL();
    } catch (const std::system_error &error) {
        EXPECT_GE(std::chrono::steady_clock::now() - begun, 30ms);
        EXPECT_EQ(error.code().value(), ETIMEDOUT);
        const std::string what = error.what();
        EXPECT_NE(what.find("session 'test' is locked by pid:" + std::to_string(holder->pid()) + " (queued, since 20"),
                  std::string::npos)
            << what;
    }
    EXPECT_FALSE(lock.try_lock());
    EXPECT_FALSE(lock.try_lock_for(1ms));
    EXPECT_TRUE(read_lock_queue(session_).waiting.empty()) << "who gave up has left the queue";
    EXPECT_EQ(read_lock_queue(session_).holder->pid(), holder->pid()) << "and touched nobody's lock";
    holder->tell('l');
    lock.lock();
    lock.unlock();
}

TEST_F(SessionLockTest, TryOnceDoesNotPassThoseWhoWait) {
    SessionLock lock(session_);
    EXPECT_TRUE(lock.try_lock());
    auto waiter = queuer();
    ASSERT_EQ(waiter->hear(), 'q');
    lock.unlock();
    SessionLock hasty(session_);
    EXPECT_FALSE(hasty.try_lock()) << "the other was first, whether it is inside already or not";
    ASSERT_EQ(hear_other_than(*waiter, 'q'), 'h');
}

TEST_F(SessionLockTest, ThreadsQueueLikeProcesses) {
    SessionLock lock(session_);
    int inside = 0;
    std::atomic<bool> together = false;
    std::vector<std::thread> threads;
    for (int i = 0; i < 4; ++i) {
        threads.emplace_back([&] {
            for (int turn = 0; turn < 25; ++turn) {
                const std::lock_guard guard(lock);
                if (++inside != 1) together = true;
                --inside;
            }
        });
    }
    for (std::thread &thread : threads) thread.join();
    EXPECT_FALSE(together);
}

TEST_F(SessionLockTest, AForkedChildHoldsNothing) {
    SessionLock lock(session_);
    lock.lock();
    auto waiter = queuer();
    ASSERT_EQ(waiter->hear(), 'q');
    Child child([&](Line &line) {
        lock.unlock();
        if (lock.try_lock()) return 1;
        line.tell('c');
        line.hear();
        return 0;
    });
    ASSERT_EQ(child.hear(), 'c');
    EXPECT_TRUE(exists(".lock")) << "the parent's";
    lock.unlock();  // while the child lives on
    ASSERT_EQ(hear_other_than(*waiter, 'q'), 'h');
    child.tell('e');
    EXPECT_EQ(child.status(), 0);
}

TEST_F(SessionLockTest, AThreadThatIsCancelledWhileItWaitsLeavesTheQueue) {
#ifdef __SANITIZE_ADDRESS__
    GTEST_SKIP() << "AddressSanitizer takes what a cancelled thread's frames left behind for its own stack";
#endif
    const auto waits = [&] { return !read_lock_queue(session_).waiting.empty(); };
    for (int turn = 0; turn < 20; ++turn) {
        auto holder = queuer();
        ASSERT_EQ(holder->hear(), 'h');
        SessionLock lock(session_, {.operation = "cancelled"});
        std::thread waiter([&] {
            lock.lock();
            lock.unlock();
        });
        while (!waits()) ::usleep(1000);
        // While it certainly sleeps, and about when it gets the lock.
        const bool certainly_sleeps = turn == 0;
        if (!certainly_sleeps) holder->tell('l');
        ::pthread_cancel(waiter.native_handle());
        waiter.join();
        if (certainly_sleeps) {
            EXPECT_EQ(read_lock_queue(session_).holder->pid(), holder->pid());
            EXPECT_NE(log().find("\"errno\":" + std::to_string(ECANCELED)), std::string::npos);
            holder->tell('l');
        }
        ASSERT_TRUE(lock.try_lock_for(10s)) << "turn " << turn;
        EXPECT_FALSE(waits());  // only now: who gives the lock back stands in the queue for a moment longer
        lock.unlock();
    }
}

TEST_F(SessionLockTest, TheLongestTimeIsForEver) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    std::thread giver([&] {
        while (read_lock_queue(session_).waiting.empty()) ::usleep(1000);
        holder->tell('l');
    });
    SessionLock lock(session_, {.operation = "patient", .time_out = std::chrono::milliseconds::max()});
    lock.lock();
    giver.join();
    lock.unlock();
    EXPECT_TRUE(lock.try_lock_for(std::chrono::hours::max()));
}

TEST_F(SessionLockTest, WritesItsEventsAsTheyHappen) {
    const std::string trace_id = start_operation_trace("update");
    SessionLock lock(session_);
    lock.lock();
    const auto count = [this](const std::string &what) {
        const std::string text = log();
        std::size_t found = 0;
        for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) ++found;
        return found;
    };
    EXPECT_EQ(count("\"event\":\"lock_requested\",\"trace_id\":\"" + trace_id + "\",\"operation\":\"update\""), 1u);
    EXPECT_EQ(count("\"event\":\"lock_acquired\""), 1u);
    EXPECT_EQ(count("\"wait_ms\":"), 1u);
    EXPECT_EQ(count("\"event\":\"lock_released\""), 0u);
    lock.unlock();
    EXPECT_EQ(count("\"event\":\"lock_released\""), 1u);
    EXPECT_EQ(count("\"hold_ms\":"), 1u);
}

TEST_F(SessionLockTest, AHolderThatStaysForFiveTurnsIsAStalledQueue) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    const pid_t pid = holder->pid();
    std::thread ender([&] {
        while (log().find("queue_stall") == std::string::npos) ::usleep(2000);
        holder->tell('l');
    });
    SessionLock lock(session_);
    lock.lock();
    ender.join();
    ASSERT_TRUE(lock.stall());
    EXPECT_EQ(lock.stall()->holder.pid(), pid);
    EXPECT_GE(lock.stall()->seen_for, 500ms);
    lock.unlock();
    lock.lock();
    EXPECT_FALSE(lock.stall());
}

TEST_F(SessionLockTest, AnIdleWaiterCostsNoProcessorTime) {
    auto holder = queuer();
    ASSERT_EQ(holder->hear(), 'h');
    rusage before{};
    rusage after{};
    SessionLock lock(session_);
    ::getrusage(RUSAGE_SELF, &before);
    EXPECT_FALSE(lock.try_lock_for(400ms));
    ::getrusage(RUSAGE_SELF, &after);
    EXPECT_LT(after.ru_nvcsw - before.ru_nvcsw, 20) << "it should sleep, not look again and again";
}

TEST_F(SessionLockTest, FoldersThatCannotBeWrittenAreAnErrorThatNamesThem) {
    const Session missing{"missing", folder_.file("sessions/missing")};
    try {
        SessionLock lock(missing);
        FAIL();
    } catch (const std::system_error &error) {
        EXPECT_NE(std::string(error.what()).find("sessions/missing/.lock_wait"), std::string::npos) << error.what();
    }
    write(".lock_queue", "a file");
    SessionLock lock(session_);
    EXPECT_THROW(lock.lock(), std::system_error);
    EXPECT_FALSE(exists(".lock"));
}

// Holders and waiters that are killed, and waits that are given up, at random: never two inside, and all go on.
TEST_F(SessionLockTest, NoTwoAreEverInsideWhoeverIsKilled) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    const std::string inside_path = folder_.file("inside");
    std::ofstream(inside_path).put('x');
    const auto work = [&](Line &line, unsigned own_seed) {
        std::mt19937 random(own_seed);
        // A POSIX lock, whose descriptor is lower than the guard's: of a killed process the kernel drops it before the
        // guard.
        const int inside = ::open(inside_path.c_str(), O_RDWR | O_CLOEXEC);
        const auto mark = [&](short type) {
            struct flock whole {};
            whole.l_type = type;
            return ::fcntl(inside, F_SETLK, &whole) == 0;
        };
        SessionLock lock(session_);
        for (;;) {
            if (random() % 4 == 0) {
                if (!lock.try_lock_for(std::chrono::microseconds(random() % 2000))) continue;
            } else {
                lock.lock();
            }
            line.tell(mark(F_WRLCK) ? 'i' : 'X');
            mark(F_UNLCK);
            lock.unlock();
        }
        return 0;
    };
    std::mt19937 random(seed);
    std::vector<std::unique_ptr<Child>> workers;
    unsigned started = 0;
    const auto start = [&] {
        const unsigned own_seed = seed + ++started;
        return std::make_unique<Child>([&, own_seed](Line &line) { return work(line, own_seed); });
    };
    for (int i = 0; i < 6; ++i) workers.push_back(start());
    for (int kills = 0; kills < 200; ++kills) {
        for (unsigned turns = 1 + random() % 4; turns > 0; --turns) {
            const std::size_t one = random() % workers.size();
            ASSERT_EQ(workers[one]->hear(), 'i') << "seed " << seed << ", after " << kills << " kills";
        }
        const std::size_t victim = random() % workers.size();
        workers[victim]->kill();
        workers[victim] = start();
    }
    for (auto &worker : workers) worker->kill();
    SessionLock lock(session_);
    EXPECT_TRUE(lock.try_lock_for(10s)) << "what the dead left is no obstacle";
}

}  // namespace
}  // namespace planloop
