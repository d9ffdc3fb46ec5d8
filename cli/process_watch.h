// Sees at what moment each traced process dies, with a pidfd on each (pidfd_open(2)): it becomes readable in the
// instant in which the kernel has taken the process's locks back, also after SIGKILL, and also for processes that are
// nobody's child here. Some descriptors are left to the rest of planloop: where the limit allows no more, a process is
// asked for at the looks instead, and recorded as one of which nobody saw when it ended (kGoneUnwatched).
//
// Which processes there are, the spool tells: look() finds those that attached since. Of one that is gone
// before it could be looked at the same is recorded. What cannot be found out now is no end: it is asked again.
//
// Pids that the spool tells are those of a process's own PID namespace. As soon as one process of the session has
// another than the spool's maker (SpoolHeader::foreign_pids), each is looked for in /proc, by the name it has for
// itself.
//
// Of a process that runs for longer than a moment its forebears up to the next one that is watched are recorded: such
// as do not record themselves, a shell mostly, but may be waited for by who holds a lock.
//
// Threads: externally synchronised. Cost: look() is one load when nothing is new; processes without a pidfd cost a
// twentieth of a core at most.
#ifndef PLANLOOP_CLI_PROCESS_WATCH_H
#define PLANLOOP_CLI_PROCESS_WATCH_H

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "cli/own_pids.h"
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

    // Watches a child of this process, whose end the caller will tell of; takes the pidfd over, -1 where there is none.
    void add_child(pid_t pid, int pidfd);
    // Watches any other process, if it runs and is not watched yet; of one that this run was started by, itself too, it
    // is recorded that it is not traced.
    void add_other(pid_t pid);
    // Sends a signal to every watched process.
    void signal_all(int number) const;
    // Watches what attached since the last look; true if that was anybody. Processes without a pidfd are given a rest
    // between looks, but for the `last`.
    bool look(bool last = false);
    // The pidfd of `pid` is readable: writes its end. `wait_status` -1: not known.
    void ended(pid_t pid, int wait_status, std::uint64_t died_at);

  private:
    struct Watched {
        int pidfd = -1;                // -1: asked for at the looks
        pid_t told = 0;                // its pid in the recording
        std::uint64_t start_time = 0;  // clock ticks since boot; 0: unknown
    };

    struct Young {
        pid_t pid;
        std::chrono::steady_clock::time_point since;
    };

    void tell_parents_of_grown();
    void tell_parents(pid_t pid);
    bool look_at_sharing();
    bool look_at_streams();
    bool look_at_stream(std::size_t stream);
    void look_at_those_without_pidfd(bool last);
    void keep(pid_t pid, const Watched &process);
    static bool has_ended(pid_t pid, const Watched &process);
    int open_pidfd(pid_t pid) const;
    void watch(pid_t pid, std::uint64_t start_time);
    bool watch(pid_t pid, pid_t told, std::uint64_t start_time);  // false: it does not run
    std::vector<pid_t> known_there_as(pid_t told, std::uint64_t start_time) const;
    bool watch_foreign(pid_t told, std::uint64_t start_time);  // true: any was new
    bool has_foreign_pids() const;

    SupervisedSpool &spool_;
    int epoll_fd_;
    std::unique_ptr<SpoolReader> reader_;
    int most_descriptors_;  // numbers from here on are left to others
    pid_t child_ = 0;
    std::unordered_map<pid_t, Watched> watched_;  // by the pid here
    std::size_t without_pidfd_ = 0;               // so many of them
    std::deque<Young> young_;                     // watched for a moment only, eldest first
    std::chrono::steady_clock::time_point rest_until_;
    std::optional<OwnPids> by_own_pid_;         // for one look
    std::vector<std::size_t> waiting_streams_;  // their first record was not to be seen yet
    std::size_t streams_seen_ = 0;
    std::uint32_t sharing_seen_ = 0;
    std::uint64_t claimed_seen_ = 0;
};

}  // namespace planloop::cli

#endif
