// Applies the merged events to the Model by the rules of the kernel, so that a hold belongs to whom the kernel says and
// ends when the kernel ends it (flock(2), fcntl(2), fs/locks.c):
//
//   flock, OFD  the open file description: unlocked by any sharer, or gone with the last descriptor anywhere
//   POSIX       the process: unlocked, or dropped by its close of any descriptor of the file; kept over exec
//   mutexes     the thread
//
// flock conversions drop the old lock when the call begins; range locks are converted when the call succeeds. What was
// never recorded (an unseen close, a death that nobody watched) is found out by contradiction: who got a lock
// exclusively proves that nobody else has it.
//
// Threads: externally synchronised. Cost of an event: constant, plus the waiters and holders of its lock.
#ifndef PLANLOOP_ANALYSIS_OWNERSHIP_H
#define PLANLOOP_ANALYSIS_OWNERSHIP_H

#include <array>
#include <functional>

#include "analysis/holds.h"

namespace planloop::analysis {

class Ownership {
  public:
    using Alive = std::function<bool(std::int32_t pid, std::uint64_t start_time)>;

    Ownership(Model &model, Observer &observer)
        : model_(model), waits_(model, observer), holds_(model, waits_, observer), observer_(observer) {}

    void apply(const Event &event);
    // Ends what belongs to processes that nobody saw end and that do not run any more.
    void finish(const Alive &alive);
    Waits &waits() { return waits_; }

  private:
    void take_in(const Event &event);
    void lock_requested(const Event &event, Index process);
    void lock_acquired(const Event &event, Index process);
    void lock_failed(const Event &event, Index process);
    void lock_released(const Event &event, Index process);
    void unlock_failed(const Event &event, Index process);
    void descriptor_closed(const Event &event, Index process);
    void descriptor_duplicated(const Event &event, Index process);
    void sharer_seen(const Event &event, Index process);
    void parent_seen(const Event &event);
    void process_forked(const Event &event, Index process);
    void process_started(const Event &event);
    void process_replaced(Index process, const Event &event);
    bool only_new_image_spoke(Index process) const;
    void process_left_sight(const Event &event);
    void process_ended(const Event &event);
    void child_wait(const Event &event, Index process);
    void child_reaped(const Event &event);

    Index owner_of(const Event &event, Index process, Index thread, Index file);
    Index open_request(const Event &event, Index process);
    void request_over(Index request, const RequestEnd &end);
    void abandon_requests(Index process, std::int64_t t_ns);
    void description_lost(Index description, const HoldEnd &end);
    void process_exiting(const Event &event, Index process);
    bool has_exited(std::int32_t pid, std::uint32_t image) const;
    void end_process(Index process, const ProcessEnd &end);
    HoldEnd ended_by(const Event &event, Reason reason) const;

    Model &model_;
    Waits waits_;
    Holds holds_;
    Observer &observer_;
    // Processes that said that they end: until the kernel has closed what they have open, they are still seen to share.
    struct Exited {
        std::int32_t pid = 0;
        std::uint64_t start_time = 0;
    };
    std::array<Exited, 64> exited_;  // the latest, in a circle
    std::size_t next_exited_ = 0;
};

}  // namespace planloop::analysis

#endif
