#include "lockcore/foreign_lock.h"

#include <gtest/gtest.h>
#include <sys/syscall.h>

#include <chrono>
#include <sstream>
#include <string>

#include "tests/support/refused_calls.h"
#include "tests/support/session_lock_fixture.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::Line;
using testing::refuse;

class ForeignLockTest : public testing::SessionLockTest {};

// What the Python planloop leaves behind when it is killed.
TEST_F(ForeignLockTest, ForeignLocksThatAreLeftBehindAreRemovedAndLivingOnesAreWaitedFor) {
    const std::string now = std::to_string(utc_now_ns() / 1'000'000'000);
    const std::string dead = "pid:" + std::to_string(dead_pid());
    const std::string self = "pid:" + std::to_string(::getpid());
    struct Case {
        const char *what;
        std::string info;
        std::chrono::seconds age;
        bool removed;
    };
    const Case cases[] = {
        {"dead holder", "{\"held_by\":\"" + dead + "\",\"since\":" + now + ",\"operation\":\"update\"}", 0s, true},
        {"dead holder, time as text",
         "{\"held_by\":\"" + dead + "\",\"since\":\"2026-11-22T08:00:00Z\",\"operation\":\"update\"}", 0s, true},
        {"pid of a younger process", "{\"held_by\":\"" + self + "\",\"since\":1000000.5,\"operation\":\"update\"}", 0s,
         true},
        {"living holder", "{\"held_by\":\"" + self + "\",\"since\":" + now + ",\"operation\":\"update\"}", 0s, false},
        {"living holder for long", "{\"held_by\":\"" + self + "\",\"since\":" + now + ",\"operation\":\"update\"}", 99s,
         false},
        {"an agent by name", "{\"held_by\":\"claude\",\"since\":" + now + "}", 99s, false},
        {"no information yet", "", 0s, false},
        {"half an information", "{\"held_by\":\"pi", 2s, false},
        {"no information for long", "", 6s, true},
    };
    for (const Case &one : cases) {
        SessionLock lock(session_, {.operation = "next"});
        write(".lock", "");
        if (!one.info.empty()) write(".lock_info", one.info);
        set_age(".lock", one.age);
        const auto begun = std::chrono::steady_clock::now();
        const bool got = lock.try_lock_for(one.removed ? 20s : 120ms);
        EXPECT_EQ(got, one.removed) << one.what;
        if (got && !one.info.empty()) {
            EXPECT_GE(std::chrono::steady_clock::now() - begun, 50ms) << "seen twice";
        }
        if (got) lock.unlock();
        EXPECT_EQ(exists(".lock"), !one.removed) << one.what;
        ::unlink(in_session(".lock").c_str());
        ::unlink(in_session(".lock_info").c_str());
    }
    EXPECT_NE(log().find("removed a .lock that was left behind, held by " + dead), std::string::npos);
}

TEST_F(ForeignLockTest, WaitsBehindOlderForeignEntriesOfLivingProcessesOnly) {
    const auto entry = [&](const std::string &agent, double requested_at) {
        std::ostringstream text;
        text << std::fixed << R"({"id":"x","agent":")" << agent << R"(","operation":"update","requested_at":)"
             << requested_at << "}";
        return text.str();
    };
    const double now = static_cast<double>(utc_now_ns()) / 1e9;
    struct Case {
        const char *what;
        std::string agent;
        double requested_at;
        bool passes;
    };
    const std::string self = "pid:" + std::to_string(::getpid());
    const Case cases[] = {
        {"living and older", self, now - 1, false}, {"an agent by name", "claude", now - 1, false},
        {"younger", self, now + 1000, true},        {"dead", "pid:" + std::to_string(dead_pid()), now - 1, true},
        {"left over", "claude", now - 31, true},
    };
    for (const Case &one : cases) {
        SessionLock lock(session_);
        write(".lock_queue/foreign.json", entry(one.agent, one.requested_at));
        EXPECT_EQ(lock.try_lock_for(60ms), one.passes) << one.what;
        lock.unlock();
        ::unlink(in_session(".lock_queue/foreign.json").c_str());
    }
    // One whose writer was killed before it had written anything.
    for (const auto age : {0s, 6s, 31s}) {
        SessionLock lock(session_);
        write(".lock_queue/foreign.json", "");
        set_age(".lock_queue/foreign.json", age);
        EXPECT_EQ(lock.try_lock_for(60ms), age != 0s);
        lock.unlock();
        EXPECT_EQ(exists(".lock_queue/foreign.json"), age != 31s) << "what is older than any turn is removed";
        ::unlink(in_session(".lock_queue/foreign.json").c_str());
    }
    // Once it goes, the wait is over.
    Child foreign([&](Line &line) {
        write(".lock_queue/foreign.json", entry("pid:" + std::to_string(::getpid()), now - 1));
        line.tell('w');
        line.hear();
        return 0;
    });
    ASSERT_EQ(foreign.hear(), 'w');
    auto waiter = queuer();
    ASSERT_EQ(waiter->hear(), 'q');
    foreign.kill();
    ASSERT_EQ(hear_other_than(*waiter, 'q'), 'h');
}

// A process may die between the look at it and the watch on it; a system may have no watches left.
TEST_F(ForeignLockTest, WhatCannotBeWatchedIsLookedAtAgain) {
    for (const bool holds : {true, false}) {
        Child foreign([&](Line &line) {
            const std::string who = "pid:" + std::to_string(::getpid());
            const std::string now = std::to_string(utc_now_ns() / 1'000'000'000);
            ::mkdir(in_session(".lock_queue").c_str(), 0700);
            if (holds) {
                write(".lock", "");
                write(".lock_info", R"({"held_by":")" + who + R"(","since":)" + now + "}");
            } else {
                write(".lock_queue/x.json", R"({"id":"x","agent":")" + who + R"(","requested_at":)" + now + "}");
            }
            line.tell('t');
            line.hear();
            return 0;
        });
        ASSERT_EQ(foreign.hear(), 't');
        Child waiter([&](Line &line) {
            if (!refuse({SYS_pidfd_open, SYS_inotify_init1}, EMFILE)) return 10;
            SessionLock lock(session_, {.operation = "blind", .on_position = [&](std::size_t) { line.tell('q'); }});
            return lock.try_lock_for(20s) ? 0 : 1;
        });
        ASSERT_EQ(waiter.hear(), 'q');
        foreign.kill();
        EXPECT_EQ(waiter.status(), 0) << (holds ? "holder" : "waiter");
    }
}

}  // namespace
}  // namespace planloop
