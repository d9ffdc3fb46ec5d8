// A session of its own for each test of SessionLock, what is in its folder, and processes that queue for it.
#ifndef PLANLOOP_TESTS_SUPPORT_SESSION_LOCK_FIXTURE_H
#define PLANLOOP_TESTS_SUPPORT_SESSION_LOCK_FIXTURE_H

#include <gtest/gtest.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <set>
#include <string>

#include "lockcore/clock.h"
#include "lockcore/session_lock.h"
#include "tests/support/child_process.h"

namespace planloop::testing {

class SessionLockTest : public ::testing::Test {
  protected:
    SessionLockTest() {
        ::setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
        session_ = *create_session("test");
    }

    std::string in_session(const std::string &name) const { return session_.directory + '/' + name; }
    bool exists(const std::string &name) const { return ::access(in_session(name).c_str(), F_OK) == 0; }
    void write(const std::string &name, const std::string &text) const { std::ofstream(in_session(name)) << text; }
    std::string read(const std::string &name) const {
        std::ifstream in(in_session(name));
        return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
    }
    std::set<std::string> names_in(const std::string &folder) const {
        std::set<std::string> names;
        for (const auto &entry : std::filesystem::directory_iterator(in_session(folder))) {
            names.insert(entry.path().filename());
        }
        return names;
    }
    std::string log() const { return read("logs/planloop.jsonl"); }
    void set_age(const std::string &name, std::chrono::seconds age) const {
        const std::int64_t then = utc_now_ns() / 1'000'000'000 - age.count();
        const timespec times[] = {{then, 0}, {then, 0}};
        ::utimensat(AT_FDCWD, in_session(name).c_str(), times, 0);
    }
    // A pid that no process has.
    static pid_t dead_pid() {
        Child child([](Line &) { return 0; });
        const pid_t pid = child.pid();
        child.status();
        return pid;
    }
    // A process that takes its place in the queue, tells 'q' once it waits, 'h' once it holds, and leaves when told.
    std::unique_ptr<Child> queuer() const {
        return std::make_unique<Child>([this](Line &line) {
            SessionLock lock(session_, {.operation = "queued", .on_position = [&](std::size_t) { line.tell('q'); }});
            lock.lock();
            line.tell('h');
            line.hear();
            lock.unlock();
            line.hear();
            return 0;
        });
    }
    static char hear_other_than(Child &child, char passed_over) {
        char heard = 0;
        do {
            heard = child.hear();
        } while (heard == passed_over);
        return heard;
    }

    TemporaryFolder folder_;
    Session session_;
};

}  // namespace planloop::testing

#endif
