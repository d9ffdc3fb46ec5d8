// What /proc says of a process, also of one that chose its name to mislead.
#include "lockcore/process_status.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

namespace planloop {
namespace {

TEST(ProcessStatus, ReadsANameOfParenthesesAndSpaces) {
    char old_name[16];
    ASSERT_EQ(prctl(PR_GET_NAME, old_name), 0);
    ASSERT_EQ(prctl(PR_SET_NAME, "a) R 1 (b"), 0);
    const std::optional<ProcessStatus> status = process_status(getpid());
    prctl(PR_SET_NAME, old_name);
    ASSERT_TRUE(status);
    EXPECT_EQ(status->name, "a) R 1 (b");
    EXPECT_EQ(status->state, 'R');
    EXPECT_EQ(status->parent, getppid());
    EXPECT_EQ(status->start_time, own_process_status()->start_time);
    EXPECT_GT(status->start_time, 0U);
}

TEST(ProcessStatus, RefusesATextThatIsCutShort) {
    EXPECT_FALSE(parse_process_status(""));
    EXPECT_FALSE(parse_process_status("12 (name"));
    EXPECT_FALSE(parse_process_status("12 (name)"));
    EXPECT_FALSE(parse_process_status("12 (name) S 1 12 12 0"));
}

TEST(ProcessStatus, AZombieRunsNoMore) {
    const pid_t child = fork();
    ASSERT_GE(child, 0);
    if (child == 0) _exit(0);
    siginfo_t ended{};
    ASSERT_EQ(waitid(P_PID, static_cast<id_t>(child), &ended, WEXITED | WNOWAIT), 0);
    const std::optional<ProcessStatus> status = process_status(child);
    ASSERT_TRUE(status);
    EXPECT_TRUE(status->ended());
    EXPECT_FALSE(process_runs(child, status->start_time));
    ASSERT_EQ(waitpid(child, nullptr, 0), child);
    EXPECT_FALSE(process_status(child));
    EXPECT_FALSE(process_runs(child, 0));
}

TEST(ProcessStatus, OneThatCannotBeLookedAtIsNotTakenForDead) {
    const pid_t gone = fork();
    ASSERT_GE(gone, 0);
    if (gone == 0) _exit(0);
    ASSERT_EQ(waitpid(gone, nullptr, 0), gone);
    rlimit before{};
    ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
    const rlimit none{0, before.rlim_max};
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
    const bool looked = process_status(getpid()).has_value();
    const bool runs = process_runs(getpid(), 1);
    const bool gone_runs = process_runs(gone, 1);
    ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
    EXPECT_FALSE(looked);
    EXPECT_TRUE(runs);
    EXPECT_FALSE(gone_runs);
}

TEST(ProcessStatus, APidThatStartedAtAnotherTimeIsAnotherProcess) {
    const std::uint64_t start = own_process_status()->start_time;
    EXPECT_TRUE(process_runs(getpid(), start));
    EXPECT_TRUE(process_runs(getpid(), 0));
    EXPECT_FALSE(process_runs(getpid(), start + 1));
}

TEST(ProcessStatus, PartsArgumentsBySpaces) {
    EXPECT_EQ(spaced_arguments(std::string("flock\0a b\0true\0", 15)), "flock a b true");
    EXPECT_EQ(spaced_arguments(std::string("title\0\0\0", 8)), "title");
    EXPECT_EQ(spaced_arguments(""), "");
    EXPECT_EQ(command_line_of(getpid()), own_command_line());
}

// It may be gone between the opening of its file and the reading, which is an error then (ESRCH).
TEST(ProcessStatus, AProcessThatEndsWhileItIsLookedAtHasNoCommandLine) {
    constexpr int kProcesses = 500;
    for (int i = 0; i < kProcesses; ++i) {
        const pid_t child = fork();
        ASSERT_GE(child, 0);
        if (child == 0) _exit(0);
        std::atomic<bool> reaped = false;
        std::thread reaper([&] {
            EXPECT_EQ(waitpid(child, nullptr, 0), child);
            reaped = true;
        });
        while (!reaped) static_cast<void>(command_line_of(child));
        reaper.join();
        EXPECT_EQ(command_line_of(child), "");
    }
}

}  // namespace
}  // namespace planloop
