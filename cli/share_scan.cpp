#include "cli/share_scan.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "lockcore/numbered_entries.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

constexpr std::chrono::milliseconds kRest{10};
constexpr int kLooksAgain = 100;  // at most, kRest apart

// Who took the flocks that hang on a descriptor: "lock:\t1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF".
std::vector<pid_t> flock_takers(pid_t pid, int fd) {
    std::vector<pid_t> takers;
    std::ifstream info(fmt::format("/proc/{}/fdinfo/{}", pid, fd));
    std::string line;
    while (std::getline(info, line)) {
        std::istringstream words(line);
        std::string label, number, family, kind, mode;
        pid_t taker = 0;
        if (!(words >> label >> number >> family >> kind >> mode >> taker)) continue;
        if (label == "lock:" && family == "FLOCK") takers.push_back(taker);
    }
    return takers;
}

}  // namespace

bool ShareScan::look() {
    if (!table_.is_open() && (spool_.header().shares_about.load(std::memory_order_acquire) == 0 ||
                              table_.open(spool_.path().c_str(), false) != 0)) {
        return false;
    }
    const std::uint32_t news = table_.latest_news();
    const auto now = std::chrono::steady_clock::now();
    if (news == seen_ || now < rest_until_) return news != seen_;
    std::set<File> wanted;
    table_.for_each([&](const wire::Share &row) {
        if (row.news != 0 && row.sequence - seen_ <= news - seen_) wanted.emplace(row.device, row.inode);
    });
    look_again_ = false;
    if (!wanted.empty() && !for_each_number("/proc", [&](pid_t pid) { look_at_process(pid, wanted); }))
        look_again_ = true;
    looks_again_ = look_again_ ? looks_again_ + 1 : 0;
    if (!look_again_) seen_ = news;
    if (wanted.empty()) return false;
    rest_until_ = std::chrono::steady_clock::now() + kRest;
    return true;
}

void ShareScan::look_at_process(pid_t pid, const std::set<File> &wanted) {
    if (pid == ::getpid()) return;
    const bool looked =
        for_each_number(fmt::format("/proc/{}/fd", pid), [&](int fd) { look_at_descriptor(pid, fd, wanted); });
    if (!looked && (errno == EMFILE || errno == ENFILE)) look_again_ = true;
}

// By comparing; where nobody is left to compare with, by the lock that hangs on the descriptor.
wire::Share *ShareScan::find_row(const wire::ShareKey &key) {
    if (wire::Share *row = table_.find(key)) return row;
    for (const pid_t taker : flock_takers(key.pid, key.fd)) {
        if (wire::Share *row = table_.find_taker(key, taker)) return row;
    }
    return nullptr;
}

bool ShareScan::is_about_to_exec(pid_t pid) {
    const std::optional<ProcessStatus> status = process_status(pid);
    return status && wire::same_memory(pid, status->parent);
}

void ShareScan::look_at_descriptor(pid_t pid, int fd, const std::set<File> &wanted) {
    const std::string path = fmt::format("/proc/{}/fd/{}", pid, fd);
    const std::uint64_t seen_at = spool_.ticks();  // before the look: the process may close it after it
    struct stat file {};
    if (::stat(path.c_str(), &file) != 0 || wanted.find({file.st_dev, file.st_ino}) == wanted.end()) return;
    const wire::ShareKey key{file.st_dev, file.st_ino, pid_namespace_, pid, fd};
    if (table_.find_own(key) != nullptr) return;  // known
    const wire::Share *row = find_row(key);
    if (row == nullptr) return;
    const SharedDescription shared{row->description.load(std::memory_order_acquire), row->file};
    if (shared.description == 0) return;  // the row has just been given to another
    if (looks_again_ < kLooksAgain && is_about_to_exec(pid)) {
        look_again_ = true;
        return;
    }
    {
        const wire::ShareTable::Turn turn(table_);
        if (table_.find_own(key) == nullptr) table_.put(key, shared.description, shared.file, false);
    }
    // It may have let go of it before the table could tell it that it has to say so.
    struct stat now {};
    if (::stat(path.c_str(), &now) != 0 || now.st_ino != file.st_ino || now.st_dev != file.st_dev) {
        table_.release(key);
        return;
    }
    spool_.write_sharer(shared, pid, fd, seen_at);
    watch_.add_other(pid);
}

}  // namespace planloop::cli
