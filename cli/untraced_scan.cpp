#include "cli/untraced_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <system_error>
#include <utility>

#include "lockcore/numbered_entries.h"
#include "lockcore/wire/executable.h"

namespace planloop::cli {
namespace {

using Duration = std::chrono::steady_clock::duration;

constexpr std::chrono::milliseconds kLongestPause{250};
constexpr int kPauseForLook = 300;
constexpr int kQuietPauseForLook = 2000;
constexpr std::chrono::seconds kLongestQuietPause{3};
constexpr int kQuietLooks = 8;

enum class Mapped : std::uint8_t { nothing_yet, libc_alone, shim };

Mapped what_is_mapped(pid_t pid) {
    std::ifstream maps(fmt::format("/proc/{}/maps", pid));
    std::string line;
    Mapped found = Mapped::nothing_yet;
    while (std::getline(maps, line)) {
        if (line.find("/libplanloop_preload.so") != std::string::npos) return Mapped::shim;
        if (line.find("/libc.so.6") != std::string::npos) found = Mapped::libc_alone;
    }
    return found;
}

}  // namespace

void UntracedScan::look(bool news) {
    const auto now = std::chrono::steady_clock::now();
    if (now < (news ? next_look_on_news_ : next_look_)) return;
    quiet_ = look_at_all() || news ? 0 : quiet_ + 1;
    const auto end = std::chrono::steady_clock::now();
    // Soon again at first, since many programs are short.
    pause_ = std::min<Duration>(pause_ * 2, kLongestPause);
    const auto pause = std::max(pause_, (end - now) * kPauseForLook);
    next_look_ = next_look_on_news_ = end + pause;
    if (quiet_ < kQuietLooks) return;
    const Duration longest = kLongestQuietPause;
    next_look_ = end + std::max(pause, std::min((end - now) * kQuietPauseForLook, longest));
}

bool UntracedScan::look_at_all() {
    bool news = false;
    std::unordered_set<pid_t> others;
    std::unordered_map<pid_t, Known> before = std::exchange(below_, {});
    std::vector<std::pair<pid_t, ProcessStatus>> fresh;
    for_each_number("/proc", [&](pid_t pid) {
        if (others_.find(pid) != others_.end()) {
            others.insert(pid);
            return;
        }
        std::optional<ProcessStatus> status = process_status(pid);
        if (!status || status->ended()) return;
        const auto known = before.find(pid);
        if (known != before.end() && known->second.start_time == status->start_time) {
            below_.insert(*known);
            news |= look_at(pid, *status);
        } else {
            fresh.emplace_back(pid, *std::move(status));
        }
    });
    // A parent may have a greater number than its child.
    for (bool any = true; any;) {
        any = false;
        for (auto &[pid, status] : fresh) {
            if (pid == 0 || !is_below(pid, status)) continue;
            below_[pid].start_time = status.start_time;
            look_at(pid, status);
            news = true;
            pid = 0;
            any = true;
        }
    }
    for (const auto &[pid, status] : fresh) {
        if (pid != 0) others.insert(pid);
    }
    others_ = std::move(others);
    return news;
}

bool UntracedScan::is_below(pid_t pid, const ProcessStatus &status) const {
    return pid == root_ || below_.find(status.parent) != below_.end();
}

// True: another program runs there than before, or it is not known yet what it is.
bool UntracedScan::look_at(pid_t pid, const ProcessStatus &status) {
    Known &known = below_[pid];
    if (known.image != status.image) known.settled = false;
    known.image = status.image;
    const bool was_settled = known.settled;
    if (!known.settled) known.settled = settle(pid);
    return !was_settled;
}

bool UntracedScan::settle(pid_t pid) {
    const std::string link = fmt::format("/proc/{}/exe", pid);
    std::error_code hidden;
    const std::string path = std::filesystem::read_symlink(link, hidden).string();
    if (hidden) return false;
    const Mapped mapped = what_is_mapped(pid);
    if (mapped == Mapped::shim) return true;
    const wire::PreloadObstacle obstacle = wire::obstacle_to_preload(link.c_str());
    if (!obstacle.found && mapped == Mapped::nothing_yet) return false;
    const wire::NotTracedCause cause = obstacle.found ? obstacle.cause : wire::NotTracedCause::not_attached;
    // The same program all the while, or what was seen of it does not belong together.
    if (std::filesystem::read_symlink(link, hidden).string() != path) return false;
    spool_.write_not_traced(pid, cause, path);
    return true;
}

}  // namespace planloop::cli
