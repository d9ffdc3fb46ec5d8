#include "lockcore/foreign_lock.h"

#include <fmt/format.h>
#include <sys/inotify.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "lockcore/clock.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;

constexpr auto kTwoLooks = 50ms;
constexpr auto kUntoldHolder = 5s;

// Readable once something in the folder was made, removed or written since the watch began; none when the system has no
// watch left for us.
Descriptor watch_folder(const std::string &folder) {
    Descriptor watch(::inotify_init1(IN_CLOEXEC | IN_NONBLOCK));
    if (watch.get() < 0) return watch;
    constexpr std::uint32_t kChanges =
        IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_CLOSE_WRITE | IN_DELETE_SELF | IN_ONLYDIR;
    return ::inotify_add_watch(watch.get(), folder.c_str(), kChanges) >= 0 ? std::move(watch) : Descriptor();
}

// Readable once the process has ended. Called by number: glibc 2.36 declares pidfd_open(2) for C only.
Descriptor open_process(pid_t pid) {
    return Descriptor(pid > 0 ? static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)) : -1);
}

// A process may have ended since it was looked at, and then there is nothing to watch that would tell so.
void look_soon_if_blind(Obstacle &obstacle, pid_t pid) {
    if (obstacle.watch.get() >= 0 && (pid == 0 || obstacle.process.get() >= 0)) return;
    obstacle.look_again = std::min(obstacle.look_again, SteadyClock::now() + kTwoLooks);
}

std::int64_t utc_ns(const timespec &time) {
    return std::int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

std::optional<Obstacle> ForeignLock::entries_before(std::int64_t utc_us) const {
    const auto look = [&] { return lock_files::foreign_before(session_, utc_us); };
    if (look().empty()) return std::nullopt;
    Obstacle obstacle;
    obstacle.watch = watch_folder(lock_files::queue(session_));
    const auto before = look();  // again: it may have gone before the watch began
    if (before.empty()) return std::nullopt;
    obstacle.before_us = before.size();
    const LockWaiter &oldest = before.front();
    obstacle.process = open_process(oldest.pid);
    const std::chrono::microseconds over(lock_files::over_utc_us(oldest) + 1000 - utc_now_ns() / 1000);
    obstacle.look_again = SteadyClock::now() + std::max(over, 0us);
    look_soon_if_blind(obstacle, oldest.pid);
    return obstacle;
}

std::optional<Obstacle> ForeignLock::lock(const std::string &operation) {
    Obstacle obstacle;
    obstacle.before_us = 1;
    obstacle.watch = watch_folder(session_.directory);
    struct stat lock {};
    if (::lstat(lock_files::lock(session_).c_str(), &lock) != 0) return std::nullopt;
    const LockHolder holder = lock_files::read_info(session_).value_or(LockHolder{});
    if (!is_over(lock, holder, obstacle)) return obstacle;
    ::unlink(lock_files::info(session_).c_str());
    ::unlink(lock_files::lock(session_).c_str());
    journal_.write("WARNING", operation,
                   fmt::format("removed a .lock that was left behind, held by {}", holder.description()));
    return std::nullopt;
}

// If it is not, `obstacle` gets what else to wait for.
bool ForeignLock::is_over(const struct stat &lock, const LockHolder &holder, Obstacle &obstacle) {
    const pid_t pid = holder.pid();
    if (pid == 0 && !holder.held_by.empty()) {  // an agent of which we know no process
        look_soon_if_blind(obstacle, 0);
        return false;
    }
    if (pid != 0 && process_was_there(pid, holder.since_utc_ns)) {
        obstacle.process = open_process(pid);
        look_soon_if_blind(obstacle, pid);
        return false;
    }
    const auto now = SteadyClock::now();
    struct stat info {};
    // What is older than the lock was written by the holder before, and says nothing.
    const bool told = pid != 0 && ::stat(lock_files::info(session_).c_str(), &info) == 0 &&
                      utc_ns(info.st_mtim) >= utc_ns(lock.st_mtim);
    const std::string suspect = fmt::format("{}.{}.{}", lock.st_ino, utc_ns(lock.st_ctim),
                                            told ? fmt::format("{}.{}", holder.held_by, holder.since_utc_ns) : "");
    if (suspect != suspect_) {
        suspect_ = suspect;
        suspected_at_ = now;
    }
    if (told) {
        obstacle.look_again = suspected_at_ + kTwoLooks;
    } else {  // by its age; or, should the clock have been set, since we see it
        const auto age = std::max(std::chrono::nanoseconds(utc_now_ns() - utc_ns(lock.st_mtim)), 0ns);
        obstacle.look_again = std::min(now - age, suspected_at_) + kUntoldHolder;
    }
    return now >= obstacle.look_again;
}

}  // namespace planloop
