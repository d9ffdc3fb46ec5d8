// Takes a session's lock again and again, as the C++ planloop does, and sees that nobody else is inside.
//
//   session_worker SESSION TURNS INSIDE   each turn makes and removes the file INSIDE, which must not be there;
//                                         prints the longest wait in seconds
//   session_worker SESSION hold           prints "held" once it holds the lock, and keeps it until its input ends
//   session_worker SESSION flock FILE     the same, then takes the flock of FILE as well, and ends
//
// Status 1 and a line on stderr when something is wrong.

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <string_view>

#include "lockcore/session_lock.h"

namespace {

using Clock = std::chrono::steady_clock;

int hold(const planloop::Session &session, const char *file) {
    planloop::SessionLock lock(session, {.operation = "hold"});
    const std::lock_guard guard(lock);
    std::puts("held");
    std::fflush(stdout);
    while (std::getchar() != EOF) {
    }
    if (file == nullptr) return 0;
    const int fd = ::open(file, O_RDWR | O_CLOEXEC);
    return fd >= 0 && ::flock(fd, LOCK_EX) == 0 ? 0 : 1;
}

int take_turns(const planloop::Session &session, int turns, const char *inside) {
    planloop::SessionLock lock(session, {.operation = "update", .time_out = std::chrono::minutes(2)});
    Clock::duration longest{};
    for (int turn = 0; turn < turns; ++turn) {
        const auto asked = Clock::now();
        const std::lock_guard guard(lock);
        longest = std::max(longest, Clock::now() - asked);
        const int fd = ::open(inside, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        if (fd < 0) {
            std::fprintf(stderr, "somebody else is inside\n");
            return 1;
        }
        ::close(fd);
        ::unlink(inside);
    }
    std::printf("%.6f\n", std::chrono::duration<double>(longest).count());
    return 0;
}

}  // namespace

int main(int argc, char **argv) try {
    if (argc < 3) return 2;
    const auto session = planloop::find_session(argv[1]);
    if (!session) {
        std::fprintf(stderr, "%s\n", session.error().message.c_str());
        return 1;
    }
    if (std::string_view(argv[2]) == "hold") return hold(*session, nullptr);
    if (std::string_view(argv[2]) == "flock" && argc == 4) return hold(*session, argv[3]);
    return argc == 4 ? take_turns(*session, std::atoi(argv[2]), argv[3]) : 2;
} catch (const std::exception &error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
}
