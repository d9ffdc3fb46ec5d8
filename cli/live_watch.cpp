#include "cli/live_watch.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "analysis/render/names.h"
#include "analysis/source/thread_look.h"
#include "lockcore/clock.h"
#include "lockcore/lock_id.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

using analysis::Doing;
using analysis::Participant;
using analysis::ThreadLook;

constexpr std::chrono::milliseconds kLongestPause{250};
constexpr std::size_t kMostRemembered = 1'000;  // circles
constexpr int kGenerations = 8;                 // of parents that hold a lock for the one that waits

std::optional<LockId> kernel_lock(std::string_view id) {
    const std::optional<LockId> lock = parse_lock_id(id.substr(0, id.find('#')));
    if (!lock) return std::nullopt;
    const bool kernels =
        lock->family == wire::Family::flock || lock->family == wire::Family::posix || lock->family == wire::Family::ofd;
    return kernels ? lock : std::nullopt;
}

bool asleep_in_call(const Participant &who, const ThreadLook &look) {
    if (look.doing == Doing::gone) return false;
    // Locks of other kinds wait in their own ways: on a futex, or for a thread that asks the kernel for them.
    return !kernel_lock(who.waits_for) || look.doing != Doing::other;
}

// Whether a lock of this family stands on a descriptor of the process that refers to this file.
enum class Shows { yes, no, secret };
Shows shows_lock(pid_t pid, const LockId &lock) {
    const std::string_view word = lock.family == wire::Family::flock   ? " FLOCK "
                                  : lock.family == wire::Family::posix ? " POSIX "
                                                                       : " OFDLCK ";
    const std::string folder = fmt::format("/proc/{}/fd", pid);
    const std::unique_ptr<DIR, int (*)(DIR *)> descriptors(::opendir(folder.c_str()), ::closedir);
    if (descriptors == nullptr) return Shows::secret;
    while (const dirent *entry = ::readdir(descriptors.get())) {
        struct stat file {};
        if (::stat(fmt::format("{}/{}", folder, entry->d_name).c_str(), &file) != 0) continue;
        if (file.st_ino != lock.inode || file.st_dev != lock.device) continue;
        std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", pid, entry->d_name));
        for (std::string line; std::getline(info, line);)
            if (line.compare(0, 5, "lock:") == 0 && line.find(word) != std::string::npos) return Shows::yes;
    }
    return Shows::no;
}

// A parent that waits for the participant may be the one that has the lock.
bool has_lock(pid_t pid, const LockId &lock) {
    for (int level = 0; level < kGenerations && pid > 1; ++level) {
        if (shows_lock(pid, lock) != Shows::no) return true;
        const std::optional<ProcessStatus> status = process_status(pid);
        if (!status) return false;
        pid = status->parent;
    }
    return false;
}

std::vector<std::uint64_t> in_order(std::vector<std::uint64_t> calls) {
    std::sort(calls.begin(), calls.end());
    return calls;
}

bool has_its_locks(const Participant &who) {
    const auto has = [&](const std::string &id) {
        const std::optional<LockId> lock = kernel_lock(id);
        return !lock || has_lock(who.pid, *lock);
    };
    return std::all_of(who.holds.begin(), who.holds.end(), has) &&
           std::all_of(who.parent_holds.begin(), who.parent_holds.end(), has);
}

}  // namespace

bool hangs_now(const std::vector<Participant> &participants) {
    std::vector<ThreadLook> before;
    for (const Participant &who : participants) {
        before.push_back(analysis::look_at_thread(who.pid, who.tid));
        if (!asleep_in_call(who, before.back())) return false;
    }
    if (!std::all_of(participants.begin(), participants.end(), has_its_locks)) return false;
    for (std::size_t i = 0; i < participants.size(); ++i) {
        const ThreadLook after = analysis::look_at_thread(participants[i].pid, participants[i].tid);
        if (!asleep_in_call(participants[i], after)) return false;
        if (kernel_lock(participants[i].waits_for) && after.switches != before[i].switches) return false;
    }
    return true;
}

std::string standing_sentence(const analysis::Finding &deadlock) {
    return fmt::format("{} ({}) since {} UTC: {}", deadlock.kind, analysis::certainty_name(deadlock.certainty),
                       format_utc(deadlock.from_ns).substr(11, 12), deadlock.summary);
}

void LiveWatch::deadlock_stands(const analysis::StandingDeadlock &deadlock) {
    if (was_told(deadlock)) return;
    const auto [at, added] = candidates_.try_emplace(deadlock.id);
    at->second.deadlock = deadlock;
    if (added) at->second.since = at->second.next = Clock::now();
}

bool LiveWatch::was_told(const analysis::StandingDeadlock &deadlock) const {
    const std::vector<std::uint64_t> calls = in_order(deadlock.entries);
    const bool again = deadlock.finding.participants.front().times > 1;
    return std::any_of(told_.begin(), told_.end(), [&](const std::vector<std::uint64_t> &told) {
        return std::includes(told.begin(), told.end(), calls.begin(), calls.end()) ||
               std::includes(calls.begin(), calls.end(), told.begin(), told.end()) ||
               (again && std::find_first_of(told.begin(), told.end(), calls.begin(), calls.end()) != told.end());
    });
}

bool LiveWatch::look() {
    const Clock::time_point now = Clock::now();
    bool soon = false;
    for (auto at = candidates_.begin(); at != candidates_.end();) {
        Candidate &candidate = at->second;
        const analysis::Finding &finding = candidate.deadlock.finding;
        const bool patient =
            finding.certainty == analysis::Certainty::likely && now - candidate.since < kLikelyPatience;
        if (finding.certainty == analysis::Certainty::possible || patient || now < candidate.next) {
            soon |= finding.certainty == analysis::Certainty::confirmed;
            ++at;
            continue;
        }
        if (was_told(candidate.deadlock)) {
            at = candidates_.erase(at);
            continue;
        }
        if (!hangs_now(finding.participants)) {
            candidate.next = now + candidate.pause;
            candidate.pause = std::min(2 * candidate.pause, kLongestPause);
            soon = true;
            ++at;
            continue;
        }
        tell_(finding);
        told_.push_back(in_order(candidate.deadlock.entries));
        if (told_.size() > kMostRemembered) told_.pop_front();
        at = candidates_.erase(at);
    }
    return soon;
}

}  // namespace planloop::cli
