// Finds what runs below the program that `dev run` started and never attached: its environment was replaced by somebody
// who is not recorded himself (a static program, an exec by a raw system call), or nothing can be preloaded into it.
// The shim tells of what it starts; this tells of what slipped away from it.
//
// What there is to see: /proc/PID/maps. A program that has libc mapped and not the shim will never have it, since the
// loader maps what is preloaded first. So one look is enough, at whatever moment; but a process that comes and goes
// between two looks is not seen, nor one whose parent did.
//
// Threads: externally synchronised. Errors: a process that may not be looked at is no finding. Cost: a look reads the
// status of what is below the program, and of what is new on the machine; the pauses between them are 300 times as
// long, a quarter of a second at least, and up to 3 s when the last looks found nothing new.
#ifndef PLANLOOP_CLI_UNTRACED_SCAN_H
#define PLANLOOP_CLI_UNTRACED_SCAN_H

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "cli/supervised_spool.h"
#include "lockcore/process_status.h"

namespace planloop::cli {

class UntracedScan {
  public:
    // `root`: the program, a child of this process.
    UntracedScan(SupervisedSpool &spool, pid_t root) : spool_(spool), root_(root) {}

    // Looks if it is time to; `news`: the recording has something new, so there may be something here.
    void look(bool news);

  private:
    struct Known {
        std::uint64_t start_time = 0;
        std::uint64_t image = 0;
        bool settled = false;  // of this image it is known whether the shim is in it
    };

    bool look_at_all();  // true: something is new
    bool look_at(pid_t pid, const ProcessStatus &status);
    bool is_below(pid_t pid, const ProcessStatus &status) const;
    // True when there is nothing more to find out about the image that runs now.
    bool settle(pid_t pid);

    SupervisedSpool &spool_;
    pid_t root_;
    std::unordered_map<pid_t, Known> below_;
    std::unordered_set<pid_t> others_;
    std::chrono::steady_clock::duration pause_ = std::chrono::milliseconds{15};
    std::chrono::steady_clock::time_point next_look_, next_look_on_news_;
    int quiet_ = 0;  // looks since something was new
};

}  // namespace planloop::cli

#endif
