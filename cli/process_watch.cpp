#include "cli/process_watch.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

// A descriptor for each process may be more than the usual soft limit.
void raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
}

bool is_readable(int fd) {
    pollfd wanted{fd, POLLIN, 0};
    return ::poll(&wanted, 1, 0) == 1;
}

bool descends_from(pid_t pid, pid_t ancestor) {
    constexpr int kGenerations = 256;  // a chain that is read while it changes might be a circle
    for (int i = 0; i < kGenerations && pid > 1; ++i) {
        if (pid == ancestor) return true;
        const std::optional<ProcessStatus> status = process_status(pid);
        if (!status) return false;
        pid = status->parent;
    }
    return false;
}

std::uint64_t start_time_in(const SpoolRecord &record) {
    if (record.kind != wire::RecordKind::process || record.payload.size() < sizeof(wire::ProcessBody)) return 0;
    wire::ProcessBody body;
    std::memcpy(&body, record.payload.data(), sizeof(body));
    return body.start_time;
}

}  // namespace

ProcessWatch::ProcessWatch(SupervisedSpool &spool, int epoll_fd) : spool_(spool), epoll_fd_(epoll_fd) {
    raise_descriptor_limit();
}

ProcessWatch::~ProcessWatch() {
    for (const auto &[pid, process] : watched_) ::close(process.pidfd);
}

void ProcessWatch::add_child(pid_t pid, int pidfd) {
    const std::optional<ProcessStatus> status = process_status(pid);
    watched_.emplace(pid, Watched{pidfd, pid, status ? status->start_time : 0});
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = static_cast<std::uint64_t>(pid);
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, pidfd, &wanted);
}

bool ProcessWatch::look() {
    by_own_pid_.reset();
    const bool sharing = look_at_sharing();
    return look_at_streams() || sharing;
}

void ProcessWatch::add_other(pid_t pid) {
    if (watched_.find(pid) == watched_.end()) watch(pid, 0);
}

bool ProcessWatch::has_foreign_pids() const {
    return spool_.header().foreign_pids.load(std::memory_order_acquire) != 0;
}

bool ProcessWatch::look_at_sharing() {
    const wire::SpoolHeader &header = spool_.header();
    const std::uint32_t announced = header.next_sharing.load(std::memory_order_acquire);
    if (announced == sharing_seen_) return false;
    if (announced - sharing_seen_ > wire::kSharingPids) sharing_seen_ = announced - wire::kSharingPids;
    for (; sharing_seen_ != announced; ++sharing_seen_) {
        const pid_t pid = header.sharing[sharing_seen_ % wire::kSharingPids].load(std::memory_order_acquire);
        if (pid <= 0) continue;
        if (has_foreign_pids()) {
            watch_foreign(pid, 0);
        } else {
            add_other(pid);
        }
    }
    return true;
}

bool ProcessWatch::look_at_streams() {
    const std::uint64_t claimed = spool_.claimed_bytes();
    if (claimed == claimed_seen_ && waiting_streams_.empty()) return false;
    if (reader_ == nullptr) {
        Result<std::unique_ptr<SpoolReader>> opened = SpoolReader::open(spool_.path());
        if (!opened) return false;
        reader_ = std::move(*opened);
        reader_->set_following(true);
    } else {
        reader_->poll();
    }
    claimed_seen_ = claimed;
    std::vector<std::size_t> streams = std::exchange(waiting_streams_, {});
    for (; streams_seen_ < reader_->streams().size(); ++streams_seen_) streams.push_back(streams_seen_);
    bool any = false;
    for (const std::size_t stream : streams) any |= look_at_stream(stream);
    return any;
}

bool ProcessWatch::look_at_stream(std::size_t stream) {
    const SpoolStream &found = reader_->streams()[stream];
    if (found.chunks.empty() || found.chunks[0].process == 0) return false;  // a supervisor's own
    const pid_t pid = found.chunks[0].pid;
    const bool foreign = has_foreign_pids();
    if (const auto known = watched_.find(pid); !foreign && known != watched_.end()) {
        // The same process (another thread, or another image by exec); or its number again, once its end is seen.
        if (is_readable(known->second.pidfd)) waiting_streams_.push_back(stream);
        return false;
    }
    StreamCursor cursor(stream);
    SpoolRecord record;
    if (!cursor.next(*reader_, record)) {
        if (foreign || process_runs(pid, 0)) waiting_streams_.push_back(stream);
        return false;
    }
    if (foreign) return watch_foreign(pid, start_time_in(record));
    watch(pid, start_time_in(record));
    return true;
}

// Another namespace may have a process of that number that began in the same hundredth of a second: who descends from
// this run goes before who does not.
std::vector<pid_t> ProcessWatch::known_there_as(pid_t told, std::uint64_t start_time) const {
    std::vector<pid_t> ours, all;
    const auto [first, last] = by_own_pid_->equal_range(told);
    for (auto each = first; each != last; ++each) {
        const std::optional<ProcessStatus> status = process_status(each->second);
        if (!status || (start_time != 0 && status->start_time != start_time)) continue;
        all.push_back(each->second);
        if (descends_from(each->second, ::getpid())) ours.push_back(each->second);
    }
    return ours.empty() ? all : ours;
}

bool ProcessWatch::watch_foreign(pid_t told, std::uint64_t start_time) {
    bool runs = false;
    bool any = false;
    // Who is not among the processes that were found before it was heard of may be younger than they: looked for anew.
    for (bool is_newer = !by_own_pid_;; is_newer = true) {
        if (is_newer) by_own_pid_ = pids_by_own_pid();
        for (const pid_t pid : known_there_as(told, start_time)) {
            const auto known = watched_.find(pid);
            const bool is_new = known == watched_.end();
            const bool watched =
                is_new ? watch(pid, told, start_time) : start_time == 0 || known->second.start_time == start_time;
            runs |= watched;
            any |= is_new && watched;
        }
        if (runs || is_newer) break;
    }
    if (!runs && start_time != 0) spool_.write_ended(told, start_time, wire::kGoneUnwatched, spool_.ticks());
    return any;
}

void ProcessWatch::watch(pid_t pid, std::uint64_t start_time) {
    // It may have come and gone between two looks: told as what is known of it.
    if (!watch(pid, pid, start_time) && start_time != 0)
        spool_.write_ended(pid, start_time, wire::kGoneUnwatched, spool_.ticks());
}

bool ProcessWatch::watch(pid_t pid, pid_t told, std::uint64_t start_time) {
    const int pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < 0) return false;
    // Read behind the pidfd: what runs now under this number is what the pidfd is about.
    const std::optional<ProcessStatus> status = process_status(pid);
    const bool same = status && (start_time == 0 || status->start_time == start_time);
    if (!same || is_readable(pidfd)) {
        ::close(pidfd);
        return false;
    }
    add_child(pid, pidfd);
    watched_[pid].told = told;
    return true;
}

void ProcessWatch::signal_all(int number) const {
    for (const auto &[pid, process] : watched_) {
        if (::syscall(SYS_pidfd_send_signal, process.pidfd, number, nullptr, 0) != 0 && errno == ENOSYS)
            ::kill(pid, number);
    }
}

void ProcessWatch::ended(pid_t pid, int wait_status, std::uint64_t died_at) {
    const auto found = watched_.find(pid);
    if (found == watched_.end()) return;
    spool_.write_ended(found->second.told, found->second.start_time, wait_status, died_at);
    ::close(found->second.pidfd);  // leaves the epoll set by itself
    watched_.erase(found);
}

}  // namespace planloop::cli
