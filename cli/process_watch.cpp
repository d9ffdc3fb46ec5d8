#include "cli/process_watch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <limits>
#include <utility>

#include "lockcore/descriptor.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

// A session of a few spools is followed, and /proc read, with less.
constexpr rlim_t kLeftToOthers = 32;
constexpr int kRestForLook = 20;  // times as long as the look
// Most that take a lock are gone by then; who is blocked for good is not.
constexpr std::chrono::milliseconds kMoment{50};

// A descriptor for each process may be more than the usual soft limit. What the kernel gives is the lowest free number,
// so one that is high enough tells that few are left.
int raise_descriptor_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return 0;
    const rlim_t before = std::exchange(limit.rlim_cur, limit.rlim_max);
    if (::setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
    constexpr rlim_t kMost = std::numeric_limits<int>::max();
    return static_cast<int>(std::min(limit.rlim_cur - std::min(limit.rlim_cur, kLeftToOthers), kMost));
}

bool is_readable(int fd) {
    pollfd wanted{fd, POLLIN, 0};
    return ::poll(&wanted, 1, 0) == 1;
}

bool has_descriptor_left() {
    return Descriptor(::open("/proc/self/stat", O_RDONLY | O_CLOEXEC)).get() >= 0;
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

ProcessWatch::ProcessWatch(SupervisedSpool &spool, int epoll_fd)
    : spool_(spool), epoll_fd_(epoll_fd), most_descriptors_(raise_descriptor_limit()) {}

ProcessWatch::~ProcessWatch() {
    for (const auto &[pid, process] : watched_) {
        if (process.pidfd >= 0) ::close(process.pidfd);
    }
}

void ProcessWatch::add_child(pid_t pid, int pidfd) {
    const std::optional<ProcessStatus> status = process_status(pid);
    child_ = pid;
    keep(pid, {pidfd, pid, status ? status->start_time : 0});
}

void ProcessWatch::keep(pid_t pid, const Watched &process) {
    watched_[pid] = process;
    if (process.pidfd < 0) {
        ++without_pidfd_;
        return;
    }
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = static_cast<std::uint64_t>(pid);
    ::epoll_ctl(epoll_fd_, EPOLL_CTL_ADD, process.pidfd, &wanted);
}

bool ProcessWatch::look(bool last) {
    by_own_pid_.reset();
    const bool sharing = look_at_sharing();
    const bool streams = look_at_streams();
    if (without_pidfd_ != 0) look_at_those_without_pidfd(last);
    tell_parents_of_grown();
    return streams || sharing;
}

bool ProcessWatch::has_ended(pid_t pid, const Watched &process) {
    return process.pidfd >= 0 ? is_readable(process.pidfd) : !process_runs(pid, process.start_time);
}

void ProcessWatch::look_at_those_without_pidfd(bool last) {
    const auto begin = std::chrono::steady_clock::now();
    if (!last && begin < rest_until_) return;
    std::vector<pid_t> gone;
    for (const auto &[pid, process] : watched_) {
        if (process.pidfd < 0 && pid != child_ && has_ended(pid, process)) gone.push_back(pid);
    }
    for (const pid_t pid : gone) ended(pid, wire::kGoneUnwatched, spool_.ticks());
    const auto end = std::chrono::steady_clock::now();
    rest_until_ = end + (end - begin) * kRestForLook;
}

void ProcessWatch::tell_parents_of_grown() {
    if (young_.empty()) return;
    const auto grown = std::chrono::steady_clock::now() - kMoment;
    for (; !young_.empty() && young_.front().since <= grown; young_.pop_front())
        if (watched_.find(young_.front().pid) != watched_.end()) tell_parents(young_.front().pid);
}

void ProcessWatch::tell_parents(pid_t pid) {
    constexpr std::size_t kGenerations = 8;  // more are not followed by the analysis either
    if (has_foreign_pids()) return;
    std::vector<pid_t> between;
    for (;;) {
        const std::optional<ProcessStatus> status = process_status(pid);
        if (!status || status->parent <= 1 || status->parent == ::getpid()) return;
        pid = status->parent;
        if (watched_.find(pid) != watched_.end()) break;
        if (between.size() == kGenerations) return;
        between.push_back(pid);
    }
    for (const pid_t one : between) {
        add_other(one);
        if (watched_.find(one) != watched_.end()) spool_.write_parent(one);
    }
}

void ProcessWatch::add_other(pid_t pid) {
    if (watched_.find(pid) != watched_.end()) return;
    watch(pid, 0);
    // That no exit of it is recorded does not mean that it was killed.
    if (descends_from(::getpid(), pid)) spool_.write_not_traced(pid, wire::NotTracedCause::above_the_run, {});
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
        if (has_ended(pid, known->second)) waiting_streams_.push_back(stream);
        return false;
    }
    StreamCursor cursor(stream);
    SpoolRecord record;
    if (!cursor.next(*reader_, record)) {
        if (foreign || process_runs(pid, 0)) waiting_streams_.push_back(stream);
        return false;
    }
    if (foreign && !has_descriptor_left()) {  // nobody would be found
        waiting_streams_.push_back(stream);
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
    const int pidfd = open_pidfd(pid);
    // Read behind the pidfd: what runs now under this number is what the pidfd is about.
    if (!process_runs(pid, start_time) || (pidfd >= 0 && is_readable(pidfd))) {
        if (pidfd >= 0) ::close(pidfd);
        return false;
    }
    if (start_time == 0) start_time = process_status(pid).value_or(ProcessStatus()).start_time;
    keep(pid, {pidfd, told, start_time});
    young_.push_back({pid, std::chrono::steady_clock::now()});
    return true;
}

int ProcessWatch::open_pidfd(pid_t pid) const {
    const auto pidfd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
    if (pidfd < most_descriptors_) return pidfd;
    ::close(pidfd);
    return -1;
}

void ProcessWatch::signal_all(int number) const {
    for (const auto &[pid, process] : watched_) {
        if (process.pidfd < 0) {
            if (process_runs(pid, process.start_time)) ::kill(pid, number);
        } else if (::syscall(SYS_pidfd_send_signal, process.pidfd, number, nullptr, 0) != 0 && errno == ENOSYS)
            ::kill(pid, number);
    }
}

void ProcessWatch::ended(pid_t pid, int wait_status, std::uint64_t died_at) {
    const auto found = watched_.find(pid);
    if (found == watched_.end()) return;
    spool_.write_ended(found->second.told, found->second.start_time, wait_status, died_at);
    if (found->second.pidfd >= 0) {
        ::close(found->second.pidfd);  // leaves the epoll set by itself
    } else {
        --without_pidfd_;
    }
    watched_.erase(found);
}

}  // namespace planloop::cli
