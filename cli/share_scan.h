// Finds who shares an open file description on which a lock call was made, beyond the relatives that the shim itself
// asks: a sibling that was started before, a second number, a process that does not record at all.
//
// The shim puts each description that may be shared into the share table (lockcore/wire/share_table.h). When there is a
// new one, and only then, this looks through the descriptors of all processes that it may read, and compares. What it
// finds is recorded some milliseconds late, as `sharer` records with the time of the look, and put into the table.
//
// A child of vfork that has not become another program yet says nothing of what it closes, and may close the descriptor
// on the way. It is looked at again, until it has, or for a second.
//
// Threads: externally synchronised. Cost: one load when nothing is new, else one look at each descriptor on the
// machine, at most every ten milliseconds.
#ifndef PLANLOOP_CLI_SHARE_SCAN_H
#define PLANLOOP_CLI_SHARE_SCAN_H

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <set>
#include <utility>

#include "cli/process_watch.h"
#include "cli/supervised_spool.h"
#include "lockcore/wire/share_table.h"

namespace planloop::cli {

class ShareScan {
  public:
    ShareScan(SupervisedSpool &spool, ProcessWatch &watch) : spool_(spool), watch_(watch) {}

    // True when there was something new to look for.
    bool look();

  private:
    using File = std::pair<std::uint64_t, std::uint64_t>;  // device and inode
    void look_at_process(pid_t pid, const std::set<File> &wanted);
    void look_at_descriptor(pid_t pid, int fd, const std::set<File> &wanted);
    wire::Share *find_row(const wire::ShareKey &key);
    bool is_about_to_exec(pid_t pid);

    SupervisedSpool &spool_;
    ProcessWatch &watch_;
    wire::ShareTable table_;
    std::uint32_t pid_namespace_ = wire::own_pid_namespace();
    std::uint32_t seen_ = 0;
    int looks_again_ = 0;  // looks in a row that met a process that was about to become another program
    bool look_again_ = false;
    std::chrono::steady_clock::time_point rest_until_;
};

}  // namespace planloop::cli

#endif
