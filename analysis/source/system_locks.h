// All file locks of the machine at this moment, with nothing preloaded: one read of /proc/locks, then the fdinfo of the
// processes that may be looked into. Told as events, so that the report and its verdicts are made by the same code as
// those of a recording; there is no history in them.
//
// /proc/locks is read once and never polled: a reader holds up every lock call of the machine. It names who took a
// lock, who may be gone, and -1 for OFD locks; who has it now is told by the `lock:` lines of /proc/PID/fdinfo/FD,
// which every process shows that shares the description (proc(5)). Its `->` lines are the waiters; which of their
// threads waits, through which descriptor, is told by /proc/PID/task/TID/syscall. A thread that waits for a child is
// seen the same way.
//
// Which thread of a process took a lock is not known to the kernel. So a process counts as stuck only when all its
// threads are.
//
// Threads: externally synchronised. Errors: /proc/locks that cannot be read; what else may not be seen is in the notes.
#ifndef PLANLOOP_ANALYSIS_SOURCE_SYSTEM_LOCKS_H
#define PLANLOOP_ANALYSIS_SOURCE_SYSTEM_LOCKS_H

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "analysis/event.h"
#include "analysis/report.h"
#include "lockcore/result.h"

namespace planloop::analysis {

// A line of /proc/locks, or what follows `lock:` in fdinfo.
struct LockLine {
    bool waits = false;
    wire::Family family{};
    wire::Mode mode{};
    std::int32_t pid = 0;  // of who took it or waits; -1 for OFD locks
    std::uint64_t device = 0, inode = 0;
    std::uint64_t start = 0, len = 0;  // len 0: to the end

    bool same_lock(const LockLine &other) const;
};
// Nothing for leases, delegations and what is not understood.
std::optional<LockLine> parse_lock_line(std::string_view line);

class SystemSource : public EventSource {
  public:
    // Whether the blocked threads of a finding have slept on since, so that it was no passing picture.
    virtual bool still_true(const Finding &finding) const = 0;
};

Result<std::unique_ptr<SystemSource>> look_at_system();

}  // namespace planloop::analysis

#endif
