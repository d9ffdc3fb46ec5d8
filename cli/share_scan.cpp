#include "cli/share_scan.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>

namespace planloop::cli {
namespace {

constexpr std::chrono::milliseconds kRest{10};

// Calls visit(number) for each entry of a folder that is a number.
template <class Visit>
void for_each_number(const std::string &folder, Visit visit) {
    const std::unique_ptr<DIR, int (*)(DIR *)> open(::opendir(folder.c_str()), &::closedir);
    while (open != nullptr) {
        const dirent *entry = ::readdir(open.get());  // NOLINT(concurrency-mt-unsafe): this DIR is ours alone
        if (entry == nullptr) return;
        int number = 0;
        const std::string_view name(entry->d_name);
        const auto parsed = std::from_chars(name.data(), name.data() + name.size(), number);
        if (parsed.ec == std::errc() && parsed.ptr == name.data() + name.size()) visit(number);
    }
}

// kcmp(2), KCMP_FILE: 0 the same description, positive another one, negative not known.
long compare(pid_t pid, int fd, pid_t other, int other_fd) {
    constexpr int kKcmpFile = 0;
    return pid == 0 || other == 0 ? -1 : ::syscall(SYS_kcmp, pid, other, kKcmpFile, fd, other_fd);
}

// Whether a flock that `taker` took hangs on a descriptor: "lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF".
bool names_taker(pid_t pid, int fd, pid_t taker) {
    std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", pid, fd));
    const std::string wanted = fmt::format(" {} ", taker);
    std::string line;
    while (std::getline(info, line)) {
        if (line.rfind("lock:", 0) == 0 && line.find(" FLOCK ") != std::string::npos &&
            line.find(wanted) != std::string::npos) {
            return true;
        }
    }
    return false;
}

bool shares(const wire::InheritedLock &lock, pid_t pid, int fd) {
    // The taker may have opened another file under that number since; its sharer still has this one.
    const long to_taker = compare(lock.taker, lock.fd, pid, fd);
    const long to_sharer = to_taker == 0 ? -1 : compare(lock.sharer, lock.fd, pid, fd);
    if (to_taker == 0 || to_sharer == 0) return true;
    if (to_taker > 0 || to_sharer > 0) return false;
    return lock.family == static_cast<std::uint16_t>(wire::Family::flock) && names_taker(pid, fd, lock.taker);
}

}  // namespace

bool ShareScan::look() {
    const wire::SpoolHeader &header = spool_.header();
    const std::uint32_t published = header.next_inherited.load(std::memory_order_acquire);
    const auto now = std::chrono::steady_clock::now();
    if (published == seen_ || now < rest_until_) return published != seen_;
    const std::uint32_t count = std::min(published - seen_, wire::kInheritedLocks);
    seen_ = published;
    std::vector<Wanted> wanted;
    for (std::uint32_t i = 1; i <= count; ++i) {
        const wire::InheritedLock &lock = header.inherited[(published - i) % wire::kInheritedLocks];
        const std::uint32_t description = lock.description.load(std::memory_order_acquire);
        if (description != 0 && lock.by_scan == 0) wanted.push_back({&lock, description});
    }
    if (wanted.empty()) return false;
    for_each_number("/proc", [&](pid_t pid) { look_at_process(pid, wanted); });
    rest_until_ = std::chrono::steady_clock::now() + kRest;
    return true;
}

void ShareScan::look_at_process(pid_t pid, const std::vector<Wanted> &wanted) {
    if (pid == ::getpid()) return;
    for_each_number(fmt::format("/proc/{}/fd", pid), [&](int fd) { look_at_descriptor(pid, fd, wanted); });
}

void ShareScan::look_at_descriptor(pid_t pid, int fd, const std::vector<Wanted> &wanted) {
    struct stat file {};
    if (::stat(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), &file) != 0) return;
    for (const Wanted &one : wanted) {
        const wire::InheritedLock &lock = *one.lock;
        if (lock.inode != file.st_ino || lock.device != file.st_dev) continue;
        if ((pid == lock.taker || pid == lock.sharer) && fd == lock.fd) continue;  // known
        if (!shares(lock, pid, fd)) continue;
        if (lock.description.load(std::memory_order_acquire) != one.description) continue;  // overwritten meanwhile
        spool_.write_sharer(lock, pid, fd);
        watch_.add_other(pid);
    }
}

}  // namespace planloop::cli
