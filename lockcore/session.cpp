#include "lockcore/session.h"

#include <dirent.h>
#include <fmt/format.h>
#include <pwd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>

#include "lockcore/clock.h"
#include "lockcore/packed_spool.h"

namespace planloop {
namespace {

constexpr std::string_view kSpoolEnding = ".spool";
constexpr std::size_t kLongestInMessage = 200;

std::string sessions_dir() {
    return planloop_home() + "/sessions";
}

std::string system_error(std::string_view what, const std::string &path, int error) {
    return fmt::format("cannot {} {}: {}", what, printable(path),
                       std::strerror(error));  // NOLINT(concurrency-mt-unsafe)
}

bool is_folder(const std::string &path) {
    struct stat status {};
    return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

Result<void> make_folder(const std::string &path) {
    if (mkdir(path.c_str(), 0700) == 0) return {};
    const int error = errno;
    if (error == EEXIST || error == EROFS || error == EACCES) {
        if (is_folder(path)) return {};
        if (error == EEXIST) return Error{fmt::format("cannot create {}: it is not a folder", printable(path))};
    }
    return Error{system_error("create", path, error)};
}

// Like mkdir -p. $PLANLOOP_HOME may lie below folders that do not exist yet.
Result<void> make_folders(const std::string &path) {
    for (std::size_t slash = path.find('/', 1); slash != std::string::npos; slash = path.find('/', slash + 1)) {
        const std::string parent = path.substr(0, slash);
        if (is_folder(parent)) continue;
        if (auto made = make_folder(parent); !made) return made;
    }
    return make_folder(path);
}

// Names in a folder, dot files left out; 0 or errno.
int read_folder(const std::string &path, std::vector<std::string> &names) {
    struct Close {
        void operator()(DIR *folder) const { closedir(folder); }
    };
    const std::unique_ptr<DIR, Close> folder(opendir(path.c_str()));
    if (!folder) return errno;
    for (;;) {
        errno = 0;
        const dirent *entry = readdir(folder.get());
        if (entry == nullptr) return errno;
        if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
}

bool ends_with(std::string_view text, std::string_view end) {
    return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_packed_name(std::string_view name) {
    return ends_with(name, kPackedEnding) &&
           ends_with(name.substr(0, name.size() - kPackedEnding.size()), kSpoolEnding);
}

bool is_spool_name(std::string_view name) {
    return is_packed_name(name) || (name.size() > kSpoolEnding.size() && ends_with(name, kSpoolEnding));
}

std::int64_t changed_ns(const struct stat &status) {
    return static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
}

Session session_called(std::string_view id) {
    return Session{std::string{id}, fmt::format("{}/{}", sessions_dir(), id)};
}

SessionSummary summarise(const std::string &id) {
    const Session session = session_called(id);
    SessionSummary summary;
    summary.id = id;
    struct stat status {};
    if (stat(session.log_file().c_str(), &status) == 0) summary.last_activity_ns = changed_ns(status);
    std::vector<std::string> names;
    read_folder(session.spool_dir(), names);
    for (const std::string &name : names) {
        if (!is_spool_name(name) || stat((session.spool_dir() + '/' + name).c_str(), &status) != 0) continue;
        if (!S_ISREG(status.st_mode)) continue;
        ++summary.spools;
        summary.spool_bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
        summary.last_activity_ns = std::max(summary.last_activity_ns, changed_ns(status));
    }
    return summary;
}

std::vector<std::string> session_ids() {
    std::vector<std::string> ids;
    read_folder(sessions_dir(), ids);
    std::erase_if(ids,
                  [](const std::string &id) { return !valid_session_id(id) || !is_folder(sessions_dir() + '/' + id); });
    std::sort(ids.begin(), ids.end());
    return ids;
}

// Levenshtein's distance: insertions, deletions and replacements that make one of the other.
std::size_t edit_distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = row[0];
        row[0] = i;
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = row[j];
            row[j] = std::min({replaced, row[j] + 1, row[j - 1] + 1});
        }
    }
    return row[b.size()];
}

Error unknown_session(std::string_view wanted, const std::vector<std::string> &ids) {
    if (ids.empty()) {
        return {fmt::format("unknown session '{}': there are no sessions in {}", printable(wanted),
                            printable(sessions_dir()))};
    }
    const auto nearest = std::min_element(ids.begin(), ids.end(), [wanted](const auto &a, const auto &b) {
        return edit_distance(wanted, a) < edit_distance(wanted, b);
    });
    return {fmt::format("unknown session '{}'; the nearest is '{}'", printable(wanted), printable(*nearest))};
}

}  // namespace

std::string printable(std::string_view text) {
    std::string out;
    for (const char c : text.substr(0, kLongestInMessage)) {
        const auto byte = static_cast<unsigned char>(c);
        out += byte < 0x20 || byte == 0x7f ? '?' : c;
    }
    if (text.size() > kLongestInMessage) out += "...";
    return out;
}

std::string planloop_home() {
    const char *home = std::getenv("PLANLOOP_HOME");  // NOLINT(concurrency-mt-unsafe)
    if (home != nullptr && *home != '\0') {
        std::string path = home;
        while (path.size() > 1 && path.back() == '/') path.pop_back();
        return path;
    }
    home = std::getenv("HOME");  // NOLINT(concurrency-mt-unsafe)
    if (home != nullptr && *home != '\0') return std::string{home} + "/.planloop";
    const passwd *user = getpwuid(getuid());  // NOLINT(concurrency-mt-unsafe)
    return std::string{user != nullptr && user->pw_dir != nullptr ? user->pw_dir : ""} + "/.planloop";
}

bool valid_session_id(std::string_view id) {
    if (id.empty() || id.size() > kLongestSessionId || id.front() == '.') return false;
    return std::all_of(id.begin(), id.end(), [](char c) {
        const auto byte = static_cast<unsigned char>(c);
        return byte >= 0x20 && byte != 0x7f && c != '/';
    });
}

Result<Session> create_session(std::string_view id) {
    if (!valid_session_id(id)) {
        return Error{fmt::format("invalid session id '{}': 1 to {} characters, no '/', not starting with '.'",
                                 printable(id), kLongestSessionId)};
    }
    Session session = session_called(id);
    if (auto made = make_folders(session.spool_dir()); !made) return made.error();
    if (access(session.spool_dir().c_str(), W_OK | X_OK) != 0) {
        return Error{system_error("write to", session.spool_dir(), errno)};
    }
    return session;
}

Result<Session> find_session(std::string_view wanted) {
    const std::vector<std::string> ids = session_ids();
    if (std::binary_search(ids.begin(), ids.end(), wanted)) return session_called(wanted);
    if (wanted == "latest") {
        const auto sessions = list_sessions();
        if (!sessions.empty() && sessions.front().last_activity_ns > 0) return session_called(sessions.front().id);
        return Error{fmt::format("no session in {} has been recorded yet", printable(sessions_dir()))};
    }
    std::vector<std::string> matches;
    for (const std::string &id : ids) {
        if (!wanted.empty() && id.compare(0, wanted.size(), wanted) == 0) matches.push_back(id);
    }
    if (matches.size() == 1) return session_called(matches.front());
    if (matches.empty()) return unknown_session(wanted, ids);
    std::string names;
    for (const std::string &id : matches) names += (names.empty() ? "" : ", ") + printable(id);
    return Error{fmt::format("session '{}' is ambiguous: {}", printable(wanted), names)};
}

std::vector<SessionSummary> list_sessions() {
    std::vector<SessionSummary> sessions;
    for (const std::string &id : session_ids()) sessions.push_back(summarise(id));
    std::stable_sort(sessions.begin(), sessions.end(), [](const SessionSummary &a, const SessionSummary &b) {
        return a.last_activity_ns > b.last_activity_ns;
    });
    return sessions;
}

Result<std::vector<std::string>> list_spools(const Session &session) {
    std::vector<std::string> names;
    const int error = read_folder(session.spool_dir(), names);
    if (error != 0 && error != ENOENT) return Error{system_error("read", session.spool_dir(), error)};
    std::erase_if(names, [](const std::string &name) { return !is_spool_name(name); });
    std::sort(names.begin(), names.end());
    // Where both are there, compressing was interrupted: the spool itself is the whole one.
    std::erase_if(names, [&](const std::string &name) {
        return is_packed_name(name) &&
               std::binary_search(names.begin(), names.end(), name.substr(0, name.size() - kPackedEnding.size()));
    });
    for (std::string &name : names) name.insert(0, session.spool_dir() + '/');
    return names;
}

std::string session_name_for(std::string_view program) {
    constexpr std::size_t kLongestStem = 64;
    program.remove_prefix(program.rfind('/') + 1);  // npos + 1 is 0
    std::string stem;
    for (const char c : program.substr(0, kLongestStem)) {
        const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
        stem += plain || c == '.' || c == '_' || c == '+' ? c : '-';
    }
    stem.erase(0, stem.find_first_not_of(".-"));
    if (stem.empty()) stem = "session";
    const std::int64_t now = utc_now_ns();
    std::uint16_t random = 0;
    if (getrandom(&random, sizeof(random), GRND_NONBLOCK) != static_cast<ssize_t>(sizeof(random))) {
        random = static_cast<std::uint16_t>(now ^ getpid());
    }
    return fmt::format("{}-{}-{:04x}", stem, compact_utc(now, true), random);
}

}  // namespace planloop
