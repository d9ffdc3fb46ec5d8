// Sees at what moment each traced process dies, with a pidfd on each (pidfd_open(2)): it becomes readable in the
// instant in which the kernel has taken the process's locks back, also after SIGKILL, and also for processes that are
// nobody's child here.
//
// Which processes there are, the spool tells: look() finds those that attached since. Of one that is gone
// before it could be looked at it is recorded that nobody saw when (kGoneUnwatched).
//
// Threads: externally synchronised. Cost: look() is one load when nothing is new.
#ifndef PLANLOOP_CLI_PROCESS_WATCH_H
#define PLANLOOP_CLI_PROCESS_WATCH_H

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <unordered_map>
#include <vector>

#include "cli/supervised_spool.h"
#include "lockcore/spool_reader.h"

namespace planloop::cli {

class ProcessWatch {
  public:
    // `epoll_fd` gets a pidfd for each process, with the process's pid as its data. Both are borrowed. Raises this
    // process's soft limit of descriptors, so programs that shall not inherit it are started before.
    ProcessWatch(SupervisedSpool &spool, int epoll_fd);
    ~ProcessWatch();
    ProcessWatch(const ProcessWatch &) = delete;
    ProcessWatch &operator=(const ProcessWatch &) = delete;

    // Watches a child of this process; takes the pidfd over.
    void add_child(pid_t pid, int pidfd);
    // Watches any other process, if it runs and is not watched yet.
    void add_other(pid_t pid);
    // Sends a signal to every watched process.
    void signal_all(int number) const;
    // Watches what attached since the last look; true if that was anybody.
    bool look();
    // The pidfd of `pid` is readable: writes its end. `wait_status` -1: not known.
    void ended(pid_t pid, int wait_status, std::uint64_t died_at);

  private:
    struct Watched {
        int pidfd = -1;
        std::uint64_t start_time = 0;  // clock ticks since boot; 0: unknown
    };

    bool look_at_sharing();
    bool look_at_streams();
    bool look_at_stream(std::size_t stream);
    void watch(pid_t pid, std::uint64_t start_time);

    SupervisedSpool &spool_;
    int epoll_fd_;
    std::unique_ptr<SpoolReader> reader_;
    std::unordered_map<pid_t, Watched> watched_;
    std::vector<std::size_t> waiting_streams_;  // their first record was not to be seen yet
    std::size_t streams_seen_ = 0;
    std::uint32_t sharing_seen_ = 0;
    std::uint64_t claimed_seen_ = 0;
};

}  // namespace planloop::cli

#endif
