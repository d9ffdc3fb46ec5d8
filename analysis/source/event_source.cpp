#include "analysis/source/event_source.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <map>
#include <set>
#include <string_view>

#include "analysis/source/event_log.h"
#include "analysis/source/event_spool.h"
#include "lockcore/closed_spool.h"
#include "lockcore/spool_reader.h"

namespace planloop::analysis {
namespace {

std::string_view name_in(std::string_view path) {
    return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

class SessionSource final : public EventSource {
  public:
    SessionSource(Session session, SourceOptions options) : session_(std::move(session)), options_(std::move(options)) {
        find_parts();
    }

    bool next(Event &event) override;
    const ProcessInfo &process(std::uint32_t id) const override {
        static const ProcessInfo nobody;
        const auto found = tables_.processes.find(id);
        return found == tables_.processes.end() ? nobody : found->second;
    }
    const FileInfo &file(std::uint32_t id) const override {
        static const FileInfo nothing;
        const auto found = tables_.files.find(id);
        return found == tables_.files.end() ? nothing : found->second;
    }
    std::int64_t now_ns() const override {
        std::int64_t now = 0;
        for (const Part &part : parts_) now = std::max(now, part.events->now_ns());
        return now;
    }
    const CallSite &call_site(std::uint32_t site) const override { return tables_.sites.site(site); }
    double share_read() const override {
        std::uint64_t read = 0, all = 0;
        for (const Part &part : parts_) {
            const auto [its_read, its_all] = part.events->position();
            read += its_read;
            all += its_all;
        }
        return all == 0 ? -1 : static_cast<double>(read) / static_cast<double>(all);
    }
    SourceNotes notes() const override;

  private:
    struct Part {
        std::unique_ptr<EventPart> events;
        Event front;
        bool has_front = false;
    };

    void keep_order(Event &event) {
        if (event.t_ns < last_ns_) ++late_;
        event.t_ns = last_ns_ = std::max(event.t_ns, last_ns_);
    }
    bool look_again();
    bool next_of_all(Event &event);
    void find_parts();
    bool may_have_new_spools();
    void find_spools();
    void find_log();
    bool is_own(const std::string &path) const { return name_in(path) == name_in(options_.own_spool); }
    bool spool_is_read(const std::string &name) const {
        return name.empty() ? !spools_.empty() : exported_.count(name) != 0;
    }

    Session session_;
    SourceOptions options_;
    EventTables tables_;
    std::vector<Part> parts_;
    std::set<std::string> spools_;                 // names of those that are read
    std::set<std::string> exported_;               // the same, and what they were called while they were written
    std::map<std::string, std::string> failures_;  // by path
    std::set<std::string> left_out_;               // paths of spools beyond the most that are read
    timespec changed_{};                           // the folder of spools, last
    std::chrono::steady_clock::time_point changed_seen_;
    bool has_log_ = false;
    bool at_end_ = false;
    std::int64_t last_ns_ = 0;
    std::uint64_t late_ = 0;
};

// A folder whose time has been the same for a second has not changed since it was listed: by then the kernel gives a
// change another time, even where its times go in steps.
bool SessionSource::may_have_new_spools() {
    constexpr std::chrono::seconds kSettled{1};
    struct stat status {};
    if (!failures_.empty() || stat(session_.spool_dir().c_str(), &status) != 0) return true;
    const auto now = std::chrono::steady_clock::now();
    const timespec &changed = status.st_mtim;
    if (changed.tv_sec != changed_.tv_sec || changed.tv_nsec != changed_.tv_nsec) {
        changed_ = changed;
        changed_seen_ = now;
    }
    return now - changed_seen_ < kSettled;
}

void SessionSource::find_parts() {
    if (may_have_new_spools()) find_spools();
    if (!has_log_) find_log();
}

void SessionSource::find_spools() {
    auto paths = list_spools(session_);
    if (!paths) {
        failures_[session_.spool_dir()] = paths.error().message;
        return;
    }
    failures_.erase(session_.spool_dir());
    // Descriptors may run out.
    std::stable_partition(paths->begin(), paths->end(), [this](const std::string &path) { return is_own(path); });
    std::vector<std::unique_ptr<SpoolReader>> readers;
    for (const std::string &path : *paths) {
        if (spools_.count(std::string(name_in(path))) != 0 || left_out_.count(path) != 0) continue;
        auto reader = SpoolReader::open(path);
        if (!reader) {
            failures_[path] = reader.error().message;
            continue;
        }
        failures_.erase(path);
        readers.push_back(std::move(*reader));
    }
    std::stable_sort(readers.begin(), readers.end(), [this](const auto &a, const auto &b) {
        const bool a_is_own = is_own(a->path()), b_is_own = is_own(b->path());
        return a_is_own != b_is_own ? b_is_own : a->created_utc_ns() < b->created_utc_ns();
    });
    const std::size_t room = kMostSpools - spools_.size();
    const std::size_t too_many = readers.size() - std::min(readers.size(), room);
    for (std::size_t i = 0; i < too_many; ++i) left_out_.insert(readers[i]->path());
    readers.erase(readers.begin(), readers.begin() + static_cast<std::ptrdiff_t>(too_many));
    for (std::unique_ptr<SpoolReader> &reader : readers) {
        const auto number = static_cast<std::uint32_t>(spools_.size());
        const std::string name(name_in(reader->path()));
        spools_.insert(name);
        exported_.insert(name);
        exported_.insert(name_while_written(name));
        parts_.emplace_back();
        parts_.back().events = std::make_unique<SpoolEvents>(
            std::move(reader), number, tables_, SpoolEvents::Following{options_.follow, options_.hold_back_ns});
    }
}

void SessionSource::find_log() {
    const std::string path = session_.log_file();
    if (access(path.c_str(), F_OK) != 0) return;
    auto reader = LineReader::open(path);
    if (!reader) {
        failures_[path] = reader.error().message;
        return;
    }
    failures_.erase(path);
    has_log_ = true;
    parts_.emplace_back();
    parts_.back().events = std::make_unique<LogEvents>(
        std::move(*reader), path, tables_, [this](const std::string &name) { return spool_is_read(name); },
        options_.follow, options_.hold_back_ns);
}

bool SessionSource::next(Event &event) {
    if (at_end_ && !look_again()) return false;
    const bool nothing_to_merge = parts_.size() == 1 && !parts_.front().has_front;
    at_end_ = !(nothing_to_merge ? parts_.front().events->next(event) : next_of_all(event));
    if (!at_end_) keep_order(event);
    return !at_end_;
}

bool SessionSource::look_again() {
    if (!options_.follow) return false;
    const bool settled = options_.over && options_.over();
    find_parts();
    for (Part &part : parts_) part.events->poll(settled);
    return true;
}

bool SessionSource::next_of_all(Event &event) {
    Part *first = nullptr;
    for (Part &part : parts_) {
        if (!part.has_front) part.has_front = part.events->next(part.front);
        if (!part.has_front) continue;
        if (first == nullptr || part.front.t_ns < first->front.t_ns ||
            (part.front.t_ns == first->front.t_ns && event_rank(part.front.kind) < event_rank(first->front.kind))) {
            first = &part;
        }
    }
    if (first == nullptr) return false;
    event = first->front;
    first->has_front = false;
    return true;
}

SourceNotes SessionSource::notes() const {
    SourceNotes notes;
    if (options_.follow) notes.late = late_;
    constexpr std::size_t kMostFailures = 16;
    for (const auto &[path, message] : failures_) {
        if (notes.messages.size() < kMostFailures) notes.messages.push_back(message);
    }
    if (failures_.size() > kMostFailures) {
        notes.messages.push_back(fmt::format("and {} more files cannot be read", failures_.size() - kMostFailures));
    }
    if (!left_out_.empty()) {
        notes.messages.push_back(fmt::format("session '{}': {} older spools are not read, beyond the newest {}",
                                             printable(session_.id), left_out_.size(), kMostSpools));
    }
    notes.unread = notes.messages.size();
    notes.own_unread = !options_.own_spool.empty() && spools_.count(std::string(name_in(options_.own_spool))) == 0;
    for (const Part &part : parts_) part.events->add_notes(notes);
    if (parts_.empty() && notes.unread == 0) {
        notes.messages.push_back(fmt::format("nothing has been recorded in session '{}'", printable(session_.id)));
    }
    return notes;
}

}  // namespace

std::uint32_t spool_number(std::size_t older) {
    return static_cast<std::uint32_t>(std::min<std::size_t>(older, kMostSpools - 1));
}

Result<std::unique_ptr<EventSource>> open_session(const Session &session, const SourceOptions &options) {
    struct stat status {};
    if (stat(session.directory.c_str(), &status) != 0 || !S_ISDIR(status.st_mode)) {
        return Error{fmt::format("session '{}' has no folder {}", printable(session.id), printable(session.directory))};
    }
    return std::unique_ptr<EventSource>(std::make_unique<SessionSource>(session, options));
}

}  // namespace planloop::analysis
