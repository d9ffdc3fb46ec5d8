#include "lockcore/state_file.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <iterator>
#include <mutex>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "lockcore/clock.h"
#include "lockcore/plan_state.h"
#include "lockcore/session_lock.h"
#include "tests/support/child_process.h"

namespace planloop {
namespace {

using Json = nlohmann::json;
using testing::Child;
using testing::Line;
using testing::TemporaryFolder;

class StateFile : public ::testing::Test {
  protected:
    StateFile() {
        ::setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
        session_ = *create_session("s");
    }
    void write(const std::string &text) const { std::ofstream(state_path(session_)) << text; }

    TemporaryFolder folder_{"/dev/shm"};
    Session session_;
};

TEST_F(StateFile, IsReplacedWholeAndPrivately) {
    write("old");
    ASSERT_TRUE(replace_file(state_path(session_), "new"));
    EXPECT_EQ(*read_state_file(session_), "new");
    struct stat status {};
    ASSERT_EQ(::stat(state_path(session_).c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 07777, 0600u);
}

TEST_F(StateFile, SaysWhatIsWrongWithIt) {
    const auto message = [&] {
        const auto state = read_state_file(session_);
        return state ? std::string() : state.error().message;
    };
    EXPECT_NE(message().find("has no plan"), std::string::npos);
    write("");
    EXPECT_NE(message().find("is empty"), std::string::npos);
    ASSERT_EQ(::truncate(state_path(session_).c_str(), 100 << 20), 0);
    EXPECT_NE(message().find("it has 100 MiB, more than 32"), std::string::npos);
    ::unlink(state_path(session_).c_str());
    ASSERT_EQ(::mkfifo(state_path(session_).c_str(), 0600), 0);
    EXPECT_NE(message().find("it is not a file"), std::string::npos);
    ::unlink(state_path(session_).c_str());
    ASSERT_EQ(::mkdir(state_path(session_).c_str(), 0700), 0);
    EXPECT_NE(message().find("it is not a file"), std::string::npos);
}

TEST_F(StateFile, ADiskThatIsFullLeavesTheOldContentAndNothingElse) {
    write("old");
    Child child([&](Line &) {
        ::signal(SIGXFSZ, SIG_IGN);
        const rlimit limit{1000, 1000};
        ::setrlimit(RLIMIT_FSIZE, &limit);
        const auto written = replace_file(state_path(session_), std::string(5000, 'x'));
        return !written && written.error().message.find("state.json") != std::string::npos ? 0 : 1;
    });
    EXPECT_EQ(child.status(), 0);
    EXPECT_EQ(*read_state_file(session_), "old");
    const auto entries = std::filesystem::directory_iterator(session_.directory);
    EXPECT_EQ(std::distance(begin(entries), end(entries)), 2) << "state.json and logs";
}

TEST_F(StateFile, KnowsTheCurrentSession) {
    EXPECT_FALSE(current_session());
    ASSERT_TRUE(set_current_session("s"));
    EXPECT_EQ(current_session(), "s");
    std::ofstream(folder_.file("current_session")) << "";
    EXPECT_FALSE(current_session());
    std::ofstream(folder_.file("current_session")) << "../../etc\n";
    EXPECT_FALSE(current_session());
}

// Each update appends its ticket to the plan, under the lock.
TEST_F(StateFile, OfManyUpdatesAtOnceNoneIsLostAndAllAreServedInTheOrderOfArrival) {
    constexpr int kProcesses = 16;
    constexpr int kUpdates = 200;
    NewPlan fresh;
    fresh.session = "s";
    ASSERT_TRUE(replace_file(state_path(session_), new_plan_state(fresh)));
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < kProcesses; ++i) {
        children.push_back(std::make_unique<Child>([&](Line &) {
            SessionLock lock(session_, {.operation = "update", .time_out = std::chrono::minutes(5)});
            for (int turn = 0; turn < kUpdates; ++turn) {
                const std::lock_guard guard(lock);
                std::ifstream own(lock_files::lock(session_));
                const auto ticket = Json::parse(own)["ticket"].get<std::uint64_t>();
                const Json payload = {{"session", "s"}, {"artifacts", {{{"type", "other"}, {"ticket", ticket}}}}};
                const auto state = read_state_file(session_);
                if (!state) return 1;
                const auto update = apply_update(*state, payload.dump(), "s", utc_now_ns());
                if (!update || !replace_file(state_path(session_), update->state)) return 2;
            }
            return 0;
        }));
    }
    for (auto &child : children) EXPECT_EQ(child->status(), 0);
    const Json state = Json::parse(*read_state_file(session_));
    EXPECT_EQ(state["version"], kProcesses * kUpdates);
    std::vector<std::uint64_t> tickets;
    for (const Json &artifact : state["artifacts"]) tickets.push_back(artifact["ticket"]);
    EXPECT_EQ(tickets.size(), static_cast<std::size_t>(kProcesses * kUpdates));
    EXPECT_TRUE(std::is_sorted(tickets.begin(), tickets.end())) << "a later ticket was served before an earlier one";
}

TEST_F(StateFile, IsWholeAtAnyMomentWhoeverIsKilledWhileWriting) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 random(seed);
    NewPlan fresh;
    fresh.session = "s";
    ASSERT_TRUE(replace_file(state_path(session_), new_plan_state(fresh)));
    const auto start = [&] {
        return std::make_unique<Child>([&](Line &line) {
            SessionLock lock(session_);
            const std::string notes(20'000, 'x');
            for (;;) {
                const std::lock_guard guard(lock);
                const Json payload = {{"session", "s"}, {"context_notes", {notes}}};
                const auto state = read_state_file(session_);
                if (!state) return 1;
                const auto update = apply_update(*state, payload.dump(), "s", utc_now_ns());
                if (!update || !replace_file(state_path(session_), update->state)) return 2;
                line.tell('u');
            }
        });
    };
    std::vector<std::unique_ptr<Child>> children;
    for (int i = 0; i < 4; ++i) children.push_back(start());
    std::int64_t version = 0;
    for (int kills = 0; kills < 200; ++kills) {
        const std::size_t one = random() % children.size();
        for (auto updates = random() % 3; updates > 0; --updates) ASSERT_EQ(children[one]->hear(), 'u');
        children[random() % children.size()]->kill();
        for (auto &child : children) {
            if (child->status_if_ended() != -1) child = start();
        }
        const auto state = read_state_file(session_);
        ASSERT_TRUE(state);
        const Json json = Json::parse(*state, nullptr, false);
        ASSERT_TRUE(json.is_object()) << "torn after " << kills << " kills";
        ASSERT_GE(json["version"], version);
        version = json["version"];
    }
    for (auto &child : children) child->kill();
    SessionLock lock(session_);
    ASSERT_TRUE(lock.try_lock_for(std::chrono::seconds(10)));
    lock.unlock();
    const auto files = std::filesystem::directory_iterator(session_.directory + "/.lock_wait");
    EXPECT_LE(std::distance(begin(files), end(files)), 6)
        << "guard, issued, issuing, and unfinished files of fixed names";
}

}  // namespace
}  // namespace planloop
