#include "lockcore/ticket_queue.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <memory>
#include <mutex>
#include <set>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lockcore/clock.h"
#include "lockcore/session.h"

namespace planloop {
namespace {

constexpr std::size_t kDigits = 20;

[[noreturn]] void fail(const char *what, const std::string &path, int error) {
    throw std::system_error(std::error_code(error, std::system_category()),
                            fmt::format("cannot {} {}", what, printable(path)));
}

// The writing ends that this process holds. A child that inherited one would keep a ticket alive that its parent left.
class HeldEnds {
  public:
    static HeldEnds &instance() {
        static HeldEnds *const ends = [] {
            auto *made = new HeldEnds;  // never destroyed: a static lock may outlive it
            pthread_atfork([] { instance().mutex_.lock(); }, [] { instance().mutex_.unlock(); },
                           [] {
                               for (const int fd : instance().fds_) ::close(fd);
                               instance().fds_.clear();
                               instance().mutex_.unlock();
                           });
            return made;
        }();
        return *ends;
    }
    int open(const std::string &path) {
        const std::lock_guard guard(mutex_);
        // Both directions: a FIFO that nobody reads yet cannot be opened for writing alone without waiting.
        const int fd = ::open(path.c_str(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0) fds_.insert(fd);
        return fd;
    }
    bool close(int fd) {
        const std::lock_guard guard(mutex_);
        if (fds_.erase(fd) == 0) return false;  // a parent's
        ::close(fd);
        return true;
    }

  private:
    std::mutex mutex_;
    std::set<int> fds_;
};

struct Issued {  // the content of the file of that name
    std::uint64_t number = 0;
    std::int64_t utc_us = 0;
};

std::uint64_t number_in(std::string_view name) {
    std::uint64_t number = 0;
    if (name.size() != kDigits) return 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    return error == std::errc{} && end == name.data() + name.size() ? number : 0;
}

// Opens the reading end of a ticket; -1: nobody holds its writing end any more.
int open_if_alive(const std::string &path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0) return -1;
    char unused = 0;
    if (::read(fd, &unused, 1) != 0) return fd;  // EAGAIN: a writer is there
    ::close(fd);
    return -1;
}

}  // namespace

TicketQueue::Ticket::Ticket(Ticket &&other) noexcept {
    *this = std::move(other);
}

TicketQueue::Ticket &TicketQueue::Ticket::operator=(Ticket &&other) noexcept {
    std::swap(path_, other.path_);
    std::swap(fd_, other.fd_);
    std::swap(number_, other.number_);
    std::swap(utc_us_, other.utc_us_);
    return *this;
}

void TicketQueue::Ticket::leave() noexcept {
    const int fd = std::exchange(fd_, -1);
    if (fd < 0) return;
    struct stat mine {};
    struct stat named {};
    // In a forked child the number of the descriptor means something else by now, or nothing.
    const bool ours = ::fstat(fd, &mine) == 0 && ::stat(path_.c_str(), &named) == 0 && mine.st_ino == named.st_ino;
    if (ours) ::unlink(path_.c_str());
    HeldEnds::instance().close(fd);
}

namespace {

std::string made_folder(std::string folder) {
    if (::mkdir(folder.c_str(), 0700) != 0 && errno != EEXIST) fail("create", folder, errno);
    return folder;
}

}  // namespace

TicketQueue::TicketQueue(std::string folder, std::function<void(std::uint64_t number)> removed)
    : folder_(made_folder(std::move(folder))),
      removed_(std::move(removed)),
      issuing_(folder_ + "/issuing", FileLock::Recorded::no) {}

std::string TicketQueue::path_of(std::uint64_t number) const {
    return fmt::format("{}/{:020}", folder_, number);
}

TicketQueue::Ticket TicketQueue::take(Clock::time_point deadline) {
    Ticket ticket;
    std::unique_lock issuing(issuing_, std::defer_lock);
    // Held for some 50 µs at a time, so a try that must not wait may wait for that.
    constexpr std::chrono::milliseconds kIssuing{20};
    if (!issuing.try_lock_until(std::max(deadline, Clock::now() + kIssuing))) return ticket;

    const std::string record = folder_ + "/issued";
    const int fd = ::open(record.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) fail("open", record, errno);
    Issued issued;
    if (::pread(fd, &issued, sizeof(issued), 0) != static_cast<ssize_t>(sizeof(issued))) issued = {};

    // Whatever has this name is left of somebody who died here: only one at a time comes so far.
    const std::string unnamed = folder_ + "/new";
    ::unlink(unnamed.c_str());
    int error = ::mkfifo(unnamed.c_str(), 0600) == 0 ? 0 : errno;
    if (error == 0) {
        ticket.fd_ = HeldEnds::instance().open(unnamed);
        if (ticket.fd_ < 0) error = errno;
    }
    ticket.number_ = issued.number;
    ticket.utc_us_ = std::max(utc_now_ns() / 1000, issued.utc_us + 1);
    if (error == 0) {
        do {  // a name that is taken: its owner died before the number was written down
            ticket.path_ = path_of(++ticket.number_);
        } while (::access(ticket.path_.c_str(), F_OK) == 0);
        if (::rename(unnamed.c_str(), ticket.path_.c_str()) != 0) error = errno;
    }
    issued = {ticket.number_, ticket.utc_us_};
    if (error == 0 && ::pwrite(fd, &issued, sizeof(issued), 0) != static_cast<ssize_t>(sizeof(issued))) {
        error = errno != 0 ? errno : ENOSPC;
    }
    ::close(fd);
    if (error != 0) fail("queue in", folder_, error);
    return ticket;
}

TicketQueue::Before TicketQueue::before(const Ticket &ticket) const {
    struct Close {
        void operator()(DIR *folder) const { ::closedir(folder); }
    };
    const std::unique_ptr<DIR, Close> folder(::opendir(folder_.c_str()));
    if (folder == nullptr) fail("read", folder_, errno);
    std::vector<std::uint64_t> numbers;
    while (const dirent *entry = ::readdir(folder.get())) {
        const std::uint64_t number = number_in(entry->d_name);
        if (number != 0 && number < ticket.number()) numbers.push_back(number);
    }
    std::sort(numbers.begin(), numbers.end());
    for (; !numbers.empty(); numbers.pop_back()) {
        const std::string path = path_of(numbers.back());
        const int fd = open_if_alive(path);
        if (fd >= 0) return {fd, numbers.size()};
        if (errno == EMFILE || errno == ENFILE) fail("open", path, errno);
        if (removed_) removed_(numbers.back());
        ::unlink(path.c_str());
    }
    return {};
}

}  // namespace planloop
