// Finds who shares an open file description on which a lock was taken, beyond the relatives that the shim itself can
// ask: a sibling that was started before the lock was taken, a child that moved the descriptor to another number, a
// process that does not record at all.
//
// The shim publishes each lock that it took through a descriptor which may be shared (SpoolHeader::inherited). For
// those, and only then, this looks through the descriptors of all processes that it may read, and compares with
// kcmp(2); where nobody is left to compare with, a flock's line in /proc/PID/fdinfo names its taker. What it finds is
// recorded some milliseconds late, as `sharer` records.
//
// Threads: externally synchronised. Cost: one load when nothing is new, else one look at each descriptor on the
// machine, at most every ten milliseconds.
#ifndef PLANLOOP_CLI_SHARE_SCAN_H
#define PLANLOOP_CLI_SHARE_SCAN_H

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <vector>

#include "cli/process_watch.h"
#include "cli/supervised_spool.h"

namespace planloop::cli {

class ShareScan {
  public:
    ShareScan(SupervisedSpool &spool, ProcessWatch &watch) : spool_(spool), watch_(watch) {}

    // True when there was something new to look for.
    bool look();

  private:
    struct Wanted {
        const wire::InheritedLock *lock;
        std::uint32_t description;
    };
    void look_at_process(pid_t pid, const std::vector<Wanted> &wanted);
    void look_at_descriptor(pid_t pid, int fd, const std::vector<Wanted> &wanted);

    SupervisedSpool &spool_;
    ProcessWatch &watch_;
    std::uint32_t seen_ = 0;
    std::chrono::steady_clock::time_point rest_until_;
};

}  // namespace planloop::cli

#endif
