// Tells of a deadlock while it hangs. The analysis of a running session says what stands in the recording; before a
// word is said, the kernel is asked about the participants, and about nobody else: their /proc/PID/task/TID/syscall and
// their descriptors' fdinfo, never /proc/locks.
//
// The second look is one instant for all of them: each is asleep in its lock call, each has the locks that others wait
// for, and none has left the processor between a first and a last reading of its context switches. A recording shows a
// call as open for a moment after it was granted, and a program may let go in ways that are not recorded; neither
// passes. What does not pass is looked at again for as long as it stands in the recording.
//
// Told is what is certain; what a running thread or sharer might still dissolve (certainty `likely`) only after it
// stood for kLikelyPatience; what is merely possible never. Each circle is told once: one that grows, shrinks, or
// closes again since an interrupted call was repeated is the same; one that closes by another call of somebody who was
// in one is another.
//
// Threads: one user at a time. Errors: none; what may not be read does not contradict.
#ifndef PLANLOOP_CLI_LIVE_WATCH_H
#define PLANLOOP_CLI_LIVE_WATCH_H

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "analysis/report.h"

namespace planloop::cli {

class LiveWatch : public analysis::DeadlockListener {
  public:
    static constexpr std::chrono::milliseconds kLikelyPatience{1'000};

    explicit LiveWatch(std::function<void(const analysis::Finding &)> tell) : tell_(std::move(tell)) {}

    void deadlock_stands(const analysis::StandingDeadlock &deadlock) override;
    void deadlock_over(std::uint64_t id) override { candidates_.erase(id); }

    // Looks at what is due; true while something will be soon.
    bool look();

  private:
    using Clock = std::chrono::steady_clock;
    struct Candidate {
        analysis::StandingDeadlock deadlock;
        Clock::time_point since, next;
        std::chrono::milliseconds pause{2};
    };
    bool was_told(const analysis::StandingDeadlock &deadlock) const;

    std::function<void(const analysis::Finding &)> tell_;
    std::map<std::uint64_t, Candidate> candidates_;
    std::deque<std::vector<std::uint64_t>> told_;  // the newest, each with its blocked calls in order
};

// What is said of one: its kind, since when, who and for what.
std::string standing_sentence(const analysis::Finding &deadlock);

// The second look.
bool hangs_now(const std::vector<analysis::Participant> &participants);

}  // namespace planloop::cli

#endif
