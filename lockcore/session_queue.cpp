#include "lockcore/session_queue.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/process_status.h"

namespace planloop {
namespace {

using Json = nlohmann::json;

constexpr std::size_t kMostBytes = std::size_t{64} << 10;  // no file of the lock is larger
constexpr std::string_view kOurIds = "706c616e-6c6f-8f70-8000-";
constexpr std::size_t kTicketDigits = 12;
constexpr std::int64_t kSecond = 1'000'000'000;

std::optional<std::string> read_small(const std::string &path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0) return std::nullopt;
    std::string text(kMostBytes, '\0');
    const ssize_t got = ::read(fd, text.data(), text.size());
    ::close(fd);
    if (got < 0) return std::nullopt;
    text.resize(static_cast<std::size_t>(got));
    return text;
}

int write_whole(const std::string &scratch, const std::string &name, const std::string &path, const std::string &text) {
    const std::string unfinished = scratch + '/' + name;
    const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) return errno;
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    int error = wrote < 0 ? errno : static_cast<std::size_t>(wrote) < text.size() ? ENOSPC : 0;
    ::close(fd);
    if (error == 0 && ::rename(unfinished.c_str(), path.c_str()) != 0) error = errno;
    if (error != 0) ::unlink(unfinished.c_str());
    return error;
}

std::string text_in(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

// Seconds since 1970 as a number, or a time as text.
std::int64_t time_in(const Json &object, const char *key) {
    const auto found = object.find(key);
    if (found == object.end()) return 0;
    if (found->is_string()) return parse_utc(found->get<std::string>()).value_or(0);
    if (!found->is_number()) return 0;
    const auto seconds = found->get<double>();
    return std::isfinite(seconds) && seconds > 0 && seconds < 9e9 ? static_cast<std::int64_t>(seconds * 1e9) : 0;
}

pid_t number_in(const Json &object, const char *key) {
    const auto found = object.find(key);
    return found != object.end() && found->is_number_unsigned() ? static_cast<pid_t>(found->get<std::uint32_t>()) : 0;
}

pid_t pid_in(std::string_view agent) {
    pid_t pid = 0;
    if (agent.substr(0, 4) != "pid:") return 0;
    const auto [end, error] = std::from_chars(agent.data() + 4, agent.data() + agent.size(), pid);
    return error == std::errc{} && end == agent.data() + agent.size() && pid > 0 ? pid : 0;
}

std::uint64_t ticket_in(std::string_view id) {
    std::uint64_t ticket = 0;
    if (id.size() != kOurIds.size() + kTicketDigits || id.substr(0, kOurIds.size()) != kOurIds) return 0;
    const auto [end, error] = std::from_chars(id.data() + kOurIds.size(), id.data() + id.size(), ticket, 16);
    return error == std::errc{} && end == id.data() + id.size() ? ticket : 0;
}

// A file that is half written, or is no JSON, is still an entry: it counts from when it was written.
std::optional<LockWaiter> read_entry(const std::string &path, std::string_view id) {
    struct stat status {};
    const auto text = read_small(path);
    if (!text || ::stat(path.c_str(), &status) != 0) return std::nullopt;
    LockWaiter waiter;
    waiter.id = std::string(id);
    waiter.ticket = ticket_in(id);
    const Json json = Json::parse(*text, nullptr, false);
    waiter.readable = json.is_object();
    if (waiter.readable) {
        waiter.agent = text_in(json, "agent");
        waiter.operation = text_in(json, "operation");
        waiter.requested_utc_us = time_in(json, "requested_at") / 1000;
        waiter.pid = pid_in(waiter.agent);
        if (waiter.ticket != 0 && waiter.pid == 0) waiter.pid = number_in(json, "pid");
    }
    if (waiter.requested_utc_us == 0) {
        waiter.requested_utc_us = std::int64_t{status.st_mtim.tv_sec} * 1'000'000 + status.st_mtim.tv_nsec / 1000;
    }
    return waiter;
}

template <class Visit>
void for_each_entry(const Session &session, Visit visit) {
    struct Close {
        void operator()(DIR *folder) const { ::closedir(folder); }
    };
    constexpr std::string_view kEnding = ".json";
    const std::string path = lock_files::queue(session);
    const std::unique_ptr<DIR, Close> folder(::opendir(path.c_str()));
    if (folder == nullptr) return;
    while (const dirent *found = ::readdir(folder.get())) {
        const std::string_view name = found->d_name;
        if (name.front() == '.' || name.size() <= kEnding.size() ||
            name.substr(name.size() - kEnding.size()) != kEnding) {
            continue;
        }
        visit(path + '/' + found->d_name, name.substr(0, name.size() - kEnding.size()));
    }
}

bool earlier(const LockWaiter &a, const LockWaiter &b) {
    return a.requested_utc_us != b.requested_utc_us ? a.requested_utc_us < b.requested_utc_us : a.id < b.id;
}

std::string json_text(std::string_view text) {
    std::string out;
    append_json_string(out, text);
    return out;
}

}  // namespace

pid_t LockHolder::pid() const {
    return pid_in(held_by);
}

std::string LockHolder::description() const {
    std::string text = held_by.empty() ? "somebody who does not tell" : printable(held_by);
    text += " (";
    text += operation.empty() ? "operation not told" : printable(operation);
    if (since_utc_ns != 0) text += ", since " + format_utc(since_utc_ns).substr(0, 23) + 'Z';
    return text + ')';
}

bool process_was_there(pid_t pid, std::int64_t utc_ns) {
    const std::optional<ProcessStatus> status = process_status(pid);
    if (!status || status->ended()) return false;
    if (utc_ns == 0) return true;
    timespec since_boot{};
    ::clock_gettime(CLOCK_BOOTTIME, &since_boot);
    const std::int64_t boot_ns = utc_now_ns() - (since_boot.tv_sec * kSecond + since_boot.tv_nsec);
    const std::int64_t started_ns =
        boot_ns + static_cast<std::int64_t>(status->start_time) * (kSecond / ::sysconf(_SC_CLK_TCK));
    constexpr std::int64_t kClockWasSetNs = 2 * kSecond;
    return started_ns <= utc_ns + kClockWasSetNs;
}

std::string lock_files::entry_id(std::uint64_t ticket) {
    return fmt::format("{}{:012x}", kOurIds, ticket & 0xffff'ffff'ffffU);
}

std::string lock_files::entry(const Session &session, std::uint64_t ticket) {
    return fmt::format("{}/{}.json", queue(session), entry_id(ticket));
}

std::optional<LockHolder> lock_files::read_info(const Session &session) {
    const auto text = read_small(info(session));
    if (!text) return std::nullopt;
    const Json json = Json::parse(*text, nullptr, false);
    if (!json.is_object()) return std::nullopt;
    return LockHolder{text_in(json, "held_by"), text_in(json, "operation"), time_in(json, "since")};
}

std::vector<LockWaiter> lock_files::foreign_before(const Session &session, std::int64_t utc_us) {
    std::vector<LockWaiter> waiters;
    const std::int64_t now_us = utc_now_ns() / 1000;
    for_each_entry(session, [&](const std::string &path, std::string_view id) {
        if (ticket_in(id) != 0) return;
        const auto waiter = read_entry(path, id);
        if (!waiter || waiter->requested_utc_us >= utc_us) return;
        const bool gone = waiter->pid != 0 && !process_was_there(waiter->pid, waiter->requested_utc_us * 1000);
        if (gone || now_us - waiter->requested_utc_us > kLongestTurnUs) {
            ::unlink(path.c_str());
            return;
        }
        if (now_us <= over_utc_us(*waiter)) waiters.push_back(*waiter);
    });
    std::sort(waiters.begin(), waiters.end(), earlier);
    return waiters;
}

int lock_files::write_entry(const Session &session, const std::string &scratch, const LockWaiter &waiter) {
    const std::string text = fmt::format(
        R"({{"id":{},"agent":{},"operation":{},"requested_at":{}.{:06},"pid":{},"ticket":{}}})"
        "\n",
        json_text(waiter.id), json_text(waiter.agent), json_text(waiter.operation), waiter.requested_utc_us / 1'000'000,
        waiter.requested_utc_us % 1'000'000, waiter.pid, waiter.ticket);
    return write_whole(scratch, waiter.id, entry(session, waiter.ticket), text);
}

int lock_files::write_info(const Session &session, const std::string &scratch, const LockHolder &holder) {
    const std::string text = fmt::format(R"({{"held_by":{},"since":{}.{:06},"operation":{}}})"
                                         "\n",
                                         json_text(holder.held_by), holder.since_utc_ns / kSecond,
                                         holder.since_utc_ns % kSecond / 1000, json_text(holder.operation));
    return write_whole(scratch, "info", info(session), text);
}

LockQueue read_lock_queue(const Session &session) {
    LockQueue seen;
    if (::access(lock_files::lock(session).c_str(), F_OK) == 0) {
        seen.holder = lock_files::read_info(session).value_or(LockHolder{});
    }
    const pid_t inside = seen.holder ? seen.holder->pid() : 0;
    for_each_entry(session, [&](const std::string &path, std::string_view id) {
        const auto waiter = read_entry(path, id);
        if (waiter) seen.waiting.push_back(*waiter);
    });
    std::sort(seen.waiting.begin(), seen.waiting.end(), earlier);
    // Who is inside keeps its entry until it leaves.
    const auto own = std::find_if(seen.waiting.begin(), seen.waiting.end(),
                                  [&](const LockWaiter &waiter) { return inside != 0 && waiter.pid == inside; });
    if (own != seen.waiting.end()) seen.waiting.erase(own);
    return seen;
}

}  // namespace planloop
