#include "lockcore/traced_lock.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_upgradable_mutex.hpp>
#include <boost/interprocess/sync/named_mutex.hpp>
#include <boost/interprocess/sync/named_sharable_mutex.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>
#include <boost/interprocess/sync/sharable_lock.hpp>
#include <chrono>
#include <functional>
#include <mutex>
#include <set>
#include <shared_mutex>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/recorded_session.h"

namespace planloop {
namespace {

namespace bip = boost::interprocess;
using namespace std::chrono_literals;
using testing::Child;
using testing::Line;
using testing::RecordedSession;
using Lines = std::vector<std::string>;

const Lines kExclusive{"requested exclusive", "acquired exclusive", "released exclusive"};
const Lines kShared{"requested shared", "acquired shared", "released shared"};

// By the wall clock: GCC 12's ThreadSanitizer does not know the waits by the steady one.
std::chrono::system_clock::time_point soon() {
    return std::chrono::system_clock::now() + 1s;
}

Lines both(Lines first, const Lines &second) {
    first.insert(first.end(), second.begin(), second.end());
    return first;
}

TEST(TracedLock, RecordsWhatEachKindOfLockDoes) {
    const std::string name = "planloop-unit-" + std::to_string(::getpid());
    struct Case {
        const char *what;
        std::function<void()> act;
        Lines lines;
    };
    const Case cases[] = {
        {"mutex",
         [] {
             traced<std::mutex> m;
             const std::lock_guard guard(m);
         },
         kExclusive},
        {"timed mutex",
         [] {
             traced<std::timed_mutex> m;
             const std::unique_lock guard(m, soon());
         },
         kExclusive},
        {"recursive mutex",
         [] {
             traced<std::recursive_mutex> m;
             const std::lock_guard a(m);
             const std::lock_guard b(m);
         },
         {"requested exclusive", "acquired exclusive", "requested exclusive", "acquired exclusive",
          "released exclusive", "released exclusive"}},
        {"shared mutex",
         [] {
             traced<std::shared_mutex> m;
             { const std::shared_lock guard(m); }
             { const std::unique_lock guard(m); }
         },
         both(kShared, kExclusive)},
        {"shared timed mutex",
         [] {
             traced<std::shared_timed_mutex> m;
             const std::shared_lock guard(m, soon());
         },
         kShared},
        {"try that fails",
         [] {
             traced<std::shared_mutex> m;
             const std::shared_lock guard(m);
             EXPECT_FALSE(m.try_lock());
         },
         {"requested shared", "acquired shared", "requested exclusive", "failed exclusive " + std::to_string(EAGAIN),
          "released shared"}},
        {"wait that times out",
         [] {
             traced<std::shared_timed_mutex> m;
             const std::shared_lock guard(m);
             EXPECT_FALSE(m.try_lock_for(1ms));
         },
         {"requested shared", "acquired shared", "requested exclusive", "failed exclusive " + std::to_string(ETIMEDOUT),
          "released shared"}},
        {"interprocess mutex",
         [] {
             traced<bip::interprocess_mutex> m;
             const bip::scoped_lock guard(m);
         },
         kExclusive},
        {"a lock that lives elsewhere",
         [] {
             std::mutex inner;
             traced<std::mutex &> m(LockLabel{}, inner);
             const std::lock_guard guard(m);
             EXPECT_EQ(&m.native(), &inner);
         },
         kExclusive},
        {"named mutex",
         [&] {
             traced<bip::named_mutex> m{by_name(name), bip::open_or_create, name.c_str()};
             { const bip::scoped_lock guard(m); }
             bip::named_mutex::remove(name.c_str());
         },
         kExclusive},
        {"named sharable mutex",
         [&] {
             traced<bip::named_sharable_mutex> m{by_name(name), bip::open_or_create, name.c_str()};
             { const bip::sharable_lock<traced<bip::named_sharable_mutex>> guard(m); }
             bip::named_sharable_mutex::remove(name.c_str());
         },
         kShared},
        {"upgradable",
         [] {
             traced<bip::interprocess_upgradable_mutex> m;
             m.lock_upgradable();
             m.unlock_upgradable_and_lock();
             m.unlock_and_lock_sharable();
             m.unlock_sharable();
         },
         both(both(kShared, {}), both(kExclusive, kShared))},
    };
    for (const Case &one : cases) {
        const RecordedSession recorded;
        one.act();
        Lines lines = recorded.lines();
        if (std::string(one.what) == "upgradable") {
            EXPECT_EQ(lines, (Lines{"requested shared", "acquired shared", "released shared", "requested exclusive",
                                    "acquired exclusive", "released exclusive", "requested shared", "acquired shared",
                                    "released shared"}));
            continue;
        }
        EXPECT_EQ(lines, one.lines) << one.what;
    }
}

TEST(TracedLock, NamesALockByAddressOrByItsName) {
    const RecordedSession recorded;
    traced<std::mutex> mutex{"queue"};
    { const std::lock_guard guard(mutex); }
    struct Lockable {
        void lock() {}
        void unlock() {}
    };
    traced<Lockable> named{by_name("tool-setup")};
    { const std::lock_guard guard(named); }
    const auto events = recorded.events();
    ASSERT_EQ(events.size(), 6u);
    EXPECT_EQ(events[0].event.family, wire::Family::mutex);
    EXPECT_EQ(events[0].file.lock_id,
              fmt::format("mutex:{}:{:#x}", ::getpid(), reinterpret_cast<std::uintptr_t>(&mutex.native())));
    EXPECT_EQ(events[0].file.path, "queue");
    EXPECT_EQ(events[3].event.family, wire::Family::named_mutex);
    EXPECT_EQ(events[3].file.lock_id, "named_mutex:tool-setup");
}

TEST(TracedLock, AForkedChildsMutexIsAnotherLockAndANamedOneIsTheSame) {
    const RecordedSession recorded;
    traced<std::mutex> mutex;
    struct Lockable {
        void lock() {}
        void unlock() {}
    };
    traced<Lockable> named{by_name("both")};
    const auto use = [&] {
        const std::lock_guard a(mutex);
        const std::lock_guard b(named);
    };
    use();
    Child child([&](Line &) { return use(), 0; });
    const pid_t pid = child.pid();
    EXPECT_EQ(child.status(), 0);
    std::set<std::string> ids;
    std::set<std::int32_t> pids;
    for (const auto &seen : recorded.events()) {
        ids.insert(seen.file.lock_id);
        pids.insert(seen.event.pid);
        EXPECT_EQ(seen.process.pid, seen.event.pid);
    }
    EXPECT_EQ(ids.size(), 3u);
    EXPECT_EQ(pids, (std::set<std::int32_t>{::getpid(), pid}));
}

TEST(TracedLock, TellsWhatTheLockThrewAsAFailure) {
    const RecordedSession recorded;
    struct Failing {
        void lock() { throw std::system_error(EOWNERDEAD, std::system_category()); }
        bool try_lock() { throw bip::interprocess_exception("no"); }
        void unlock() {}
    };
    traced<Failing> lock;
    EXPECT_THROW(lock.lock(), std::system_error);
    EXPECT_THROW(lock.try_lock(), bip::interprocess_exception);
    EXPECT_EQ(recorded.lines(), (Lines{"requested exclusive", "failed exclusive " + std::to_string(EOWNERDEAD),
                                       "requested exclusive", "failed exclusive " + std::to_string(EIO)}));
}

TEST(TracedLock, OffersOnlyWhatTheLockInsideOffers) {
    const auto shared = []<class T>(T *) {
        return requires(T & t) {
            t.lock_shared();
        };
    };
    const auto timed = []<class T>(T *) {
        return requires(T & t) {
            t.try_lock_for(1s);
        };
    };
    EXPECT_FALSE(shared(static_cast<traced<std::mutex> *>(nullptr)));
    EXPECT_TRUE(shared(static_cast<traced<std::shared_mutex> *>(nullptr)));
    EXPECT_FALSE(timed(static_cast<traced<std::shared_mutex> *>(nullptr)));
    EXPECT_TRUE(timed(static_cast<traced<std::timed_mutex> *>(nullptr)));
}

// The counter is read after a lock was taken, so no acquisition may sort before the release that allowed it.
TEST(TracedLock, AnAcquisitionNeverSortsBeforeTheReleaseThatAllowedIt) {
    const RecordedSession recorded;
    traced<std::mutex> mutex;
    std::vector<std::thread> threads;
    for (int i = 0; i < 2; ++i) {
        threads.emplace_back([&] {
            for (int turn = 0; turn < 20'000; ++turn) const std::lock_guard guard(mutex);
        });
    }
    for (std::thread &thread : threads) thread.join();
    int holders = 0;
    int most = 0;
    for (const auto &seen : recorded.events()) {
        if (seen.event.kind == analysis::EventKind::lock_acquired) most = std::max(most, ++holders);
        if (seen.event.kind == analysis::EventKind::lock_released) --holders;
    }
    EXPECT_EQ(most, 1);
    EXPECT_EQ(holders, 0);
}

}  // namespace
}  // namespace planloop
