#include "interpose/open_descriptors.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

namespace planloop::shim {
namespace {

// Runs `check` in a process in which only the standard streams are open; whether it was true there.
template <class Check>
bool in_a_new_process(Check check) {
    const pid_t child = fork();
    if (child == 0) {
        closefrom(3);
        // The kernel's table of descriptors grows to what is open, and does not shrink: a child's is made anew.
        const pid_t again = fork();
        if (again == 0) _exit(check() ? 0 : 1);
        int status = 0;
        waitpid(again, &status, 0);
        _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 2);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

bool any(int) {
    return true;
}

// Without a look at the numbers one by one, which it is spared mostly.
bool only_standard_streams() {
    const OpenDescriptors open = open_descriptors(any);
    return open_among_64(0) == 7 && !table_reaches(64) && open.low == 7 && !open.high_matter;
}

TEST(OpenDescriptors, StandardStreamsAlone) {
    EXPECT_TRUE(in_a_new_process(only_standard_streams));
}

TEST(OpenDescriptors, FindsEachNumber) {
    for (const int number : {3, 4, 31, 32, 62, 63, 64, 65, 127, 128, 255, 256, 900, 1023, 1024, 1500, 4000}) {
        SCOPED_TRACE(number);
        const bool high = number >= 64;
        EXPECT_TRUE(in_a_new_process([=] {
            if (dup2(0, number) != number) return false;
            const std::uint64_t low = high ? 7 : 7 | std::uint64_t{1} << number;
            const OpenDescriptors open = open_descriptors(any);
            return open_among_64(0) == low && open.low == low && open.high_matter == high;
        }));
    }
}

TEST(OpenDescriptors, ATableThatOnceWasLargerHasNothingOpen) {
    for (const int number : {64, 200, 511, 1023}) {
        SCOPED_TRACE(number);
        EXPECT_TRUE(in_a_new_process([=] {
            if (dup2(0, number) != number || close(number) != 0 || !table_reaches(64)) return false;
            const OpenDescriptors open = open_descriptors(any);
            return open.low == 7 && !open.high_matter;
        }));
    }
}

TEST(OpenDescriptors, SeesWhatLiesBeyondTheLimit) {
    EXPECT_TRUE(in_a_new_process([] {
        if (dup2(0, 40) != 40 || dup2(0, 100) != 100) return false;
        const rlimit few{16, 16};
        if (setrlimit(RLIMIT_NOFILE, &few) != 0) return false;
        const OpenDescriptors open = open_descriptors(any);
        return open.low == (7 | std::uint64_t{1} << 40) && open.high_matter;
    }));
}

TEST(OpenDescriptors, LeavesIdleOnesOpenAndFindsThem) {
    EXPECT_TRUE(in_a_new_process([] {
        int ends[2];
        if (pipe(ends) != 0) return false;
        for (int number = 64; number < 128; ++number) {
            if (dup2(ends[0], number) != number) return false;  // nothing to read from any of a whole row
        }
        return open_descriptors(any).high_matter && fcntl(64, F_GETFD) == 0 && fcntl(127, F_GETFD) == 0;
    }));
}

TEST(OpenDescriptors, AsksOfEachHighOneWhetherItMatters) {
    EXPECT_TRUE(in_a_new_process([] {
        for (const int number : {70, 71, 200, 700}) {
            if (dup2(0, number) != number) return false;
        }
        return open_descriptors([](int fd) { return fd == 700; }).high_matter &&
               open_descriptors([](int fd) { return fd == 200; }).high_matter &&
               open_descriptors([](int fd) { return fd == 71; }).high_matter &&
               !open_descriptors([](int fd) { return fd != 70 && fd != 71 && fd != 200 && fd != 700; }).high_matter;
    }));
}

}  // namespace
}  // namespace planloop::shim
