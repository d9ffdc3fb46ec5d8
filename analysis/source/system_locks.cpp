#include "analysis/source/system_locks.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <tuple>

#include "analysis/source/event_part.h"
#include "analysis/source/proc_text.h"
#include "analysis/source/thread_look.h"
#include "lockcore/process_status.h"

namespace planloop::analysis {
namespace {

// POSIX locks are the process's, whatever descriptor of the file they were taken through.
constexpr std::int32_t kNoFd = -1;

struct Place {  // a descriptor
    std::int32_t pid = 0, fd = -1;
};

// One lock that somebody has, with all descriptors that show it.
struct HeldLine {
    LockLine line;
    std::vector<Place> places;
    std::uint32_t description = 0;
};

struct SeenProcess {
    ProcessInfo info;
    std::uint32_t image = 0;
    bool looked_into = false;
    bool holds = false;
    std::vector<std::pair<std::int32_t, ThreadLook>> threads;
};

bool shared_description(const Place &one, const Place &other) {
    constexpr int kKcmpFile = 0;  // kcmp(2): 0 the same, above 0 another, below 0 not to be told
    return ::syscall(SYS_kcmp, one.pid, other.pid, kKcmpFile, one.fd, other.fd) <= 0;
}

class Snapshot final : public SystemSource {
  public:
    Result<void> take();

    bool next(Event &event) override {
        if (at_ == events_.size()) return false;
        event = events_[at_++];
        return true;
    }
    const ProcessInfo &process(std::uint32_t id) const override {
        static const ProcessInfo nobody;
        const auto found = images_.find(id);
        return found == images_.end() ? nobody : found->second;
    }
    const FileInfo &file(std::uint32_t id) const override {
        static const FileInfo nothing;
        return id == 0 || id > files_.size() ? nothing : files_[id - 1];
    }
    SourceNotes notes() const override { return notes_; }
    bool still_true(const Finding &finding) const override;

  private:
    void read_processes();
    void read_descriptors(SeenProcess &process);
    void add_unseen(const std::vector<LockLine> &lines);
    void look_at_threads(SeenProcess &process);
    void find_waits(const std::vector<LockLine> &lines);
    void follow_child_waits();
    void tell_holds();
    void tell_waits();
    std::uint32_t description_at(const Place &place) const;
    std::uint32_t file_number(const LockLine &line);
    bool is_about(const LockLine &line, std::int32_t pid, std::int32_t fd) const;
    Event &event(const SeenProcess &who, EventKind kind, std::int32_t tid);
    Event &lock_event(const SeenProcess &who, EventKind kind, std::int32_t tid, const LockLine &line, std::int32_t fd);

    struct Waiting {
        LockLine line;
        std::int32_t pid, tid, fd;
    };

    std::map<std::int32_t, SeenProcess> processes_;
    std::vector<HeldLine> held_;
    std::map<std::pair<std::int32_t, std::int32_t>, std::uint32_t> descriptions_at_;  // by pid and descriptor
    std::vector<Waiting> waiting_;
    std::map<std::tuple<std::uint64_t, std::uint64_t>, std::uint32_t> file_numbers_;
    std::vector<FileInfo> files_;
    std::map<std::uint32_t, ProcessInfo> images_;
    std::map<std::pair<std::int32_t, std::int32_t>, ThreadLook> first_look_;
    std::map<std::int32_t, std::uint32_t> streams_;
    std::vector<Event> events_;
    std::size_t at_ = 0;
    std::int64_t now_ns_ = 0;
    std::uint32_t descriptions_ = 0, images_given_ = 0, streams_given_ = 0;
    SourceNotes notes_;
};

std::uint32_t Snapshot::file_number(const LockLine &line) {
    const auto [at, fresh] = file_numbers_.try_emplace({line.device, line.inode}, files_.size() + 1);
    if (fresh) {
        FileInfo &info = files_.emplace_back();
        info.device = line.device;
        info.inode = line.inode;
        info.mode = S_IFREG;
    }
    return at->second;
}

void Snapshot::read_processes() {
    for (const std::int32_t pid : numbers_in("/proc").value_or(std::vector<std::int32_t>{})) {
        if (pid == ::getpid()) continue;
        const std::optional<ProcessStatus> status = process_status(pid);
        if (!status) continue;
        SeenProcess &process = processes_[pid];
        process.info.pid = pid;
        process.info.parent_pid = status->parent;
        process.info.start_time = status->start_time;
        process.info.name = status->name;
        const std::string command = command_line_of(pid);
        process.info.command_line = command;
        if (!command.empty()) process.info.name = process_name(command, {});
        read_descriptors(process);
    }
}

void Snapshot::read_descriptors(SeenProcess &process) {
    const std::int32_t pid = process.info.pid;
    const std::string folder = fmt::format("/proc/{}/fdinfo", pid);
    const auto descriptors = numbers_in(folder);
    process.looked_into = descriptors.has_value();
    if (!descriptors) return;
    for (const std::int32_t fd : *descriptors) {
        const std::optional<std::string> info = read_proc(fmt::format("{}/{}", folder, fd));
        if (!info || info->find("lock:") == std::string::npos) continue;
        std::string_view rest = *info;
        while (!rest.empty()) {
            const std::string_view line = rest.substr(0, rest.find('\n'));
            rest.remove_prefix(std::min(rest.size(), line.size() + 1));
            if (line.substr(0, 5) != "lock:") continue;
            const std::optional<LockLine> lock = parse_lock_line(line.substr(5));
            if (!lock) continue;
            const Place here{pid, fd};
            const auto same = std::find_if(held_.begin(), held_.end(), [&](const HeldLine &one) {
                if (!one.line.same_lock(*lock)) return false;
                if (lock->family == wire::Family::posix) return one.places.front().pid == pid;
                return shared_description(one.places.front(), here);
            });
            HeldLine &held = same == held_.end() ? held_.emplace_back(HeldLine{*lock, {}, 0}) : *same;
            held.places.push_back(here);
            process.holds = true;
            FileInfo &file = files_[file_number(*lock) - 1];
            if (file.path.empty()) file.path = read_proc_link(fmt::format("/proc/{}/fd/{}", pid, fd)).value_or("");
        }
    }
}

// Locks of processes that may not be looked into: the taker stands for whoever has them.
void Snapshot::add_unseen(const std::vector<LockLine> &lines) {
    std::uint64_t hidden = 0;
    for (const LockLine &line : lines) {
        if (line.waits) continue;
        const bool seen = std::any_of(held_.begin(), held_.end(), [&](const HeldLine &one) {
            return one.line.same_lock(line) && one.line.pid == line.pid;
        });
        if (seen) continue;
        const auto taker = processes_.find(line.pid);
        if (taker != processes_.end() && taker->second.looked_into && line.family == wire::Family::posix)
            continue;  // it was given back meanwhile
        ++hidden;
        if (taker == processes_.end()) continue;
        constexpr std::int32_t kUnknownFd = 1'000'000;  // past what a descriptor can be by default
        taker->second.holds = true;
        held_.push_back({line, {{line.pid, kUnknownFd + static_cast<std::int32_t>(hidden)}}, 0});
        file_number(line);
    }
    if (hidden > 0)
        notes_.messages.push_back(fmt::format(
            "{} of {} locks belong to processes of other users, or of other containers, that I may not look into: who "
            "else shares them, and their files' paths, are not known",
            hidden, std::count_if(lines.begin(), lines.end(), [](const LockLine &line) { return !line.waits; })));
}

void Snapshot::look_at_threads(SeenProcess &process) {
    if (!process.threads.empty()) return;
    const std::int32_t pid = process.info.pid;
    for (const std::int32_t tid :
         numbers_in(fmt::format("/proc/{}/task", pid)).value_or(std::vector<std::int32_t>{pid})) {
        const ThreadLook look = look_at_thread(pid, tid);
        if (look.doing == Doing::gone) continue;
        process.threads.emplace_back(tid, look);
        first_look_[{pid, tid}] = look;
    }
}

// On some file systems stat tells another device than the kernel's own lists do, so the inode decides.
bool Snapshot::is_about(const LockLine &line, std::int32_t pid, std::int32_t fd) const {
    struct stat status {};
    return ::stat(fmt::format("/proc/{}/fd/{}", pid, fd).c_str(), &status) != 0 || status.st_ino == line.inode;
}

void Snapshot::find_waits(const std::vector<LockLine> &lines) {
    std::set<std::pair<std::int32_t, std::int32_t>> taken;  // threads that wait for another line already
    std::uint64_t nameless = 0;
    const auto look_in = [&](SeenProcess &process, const LockLine &line) {
        look_at_threads(process);
        const std::int32_t pid = process.info.pid;
        for (const auto &[tid, look] : process.threads) {
            const bool waits = look.doing == Doing::lock_wait && (look.fd < 0 || is_about(line, pid, look.fd));
            const bool perhaps = look.doing == Doing::unknown && line.pid == pid;
            if ((!waits && !perhaps) || taken.count({pid, tid}) != 0) continue;
            taken.insert({pid, tid});
            waiting_.push_back({line, pid, tid, look.fd});
            FileInfo &file = files_[file_number(line) - 1];
            if (file.path.empty() && look.fd >= 0)
                file.path = read_proc_link(fmt::format("/proc/{}/fd/{}", pid, look.fd)).value_or("");
            return true;
        }
        return false;
    };
    for (const LockLine &line : lines) {
        if (!line.waits) continue;
        bool found = false;
        if (const auto waiter = processes_.find(line.pid); waiter != processes_.end()) {
            found = look_in(waiter->second, line);
        } else {  // an OFD lock's
            for (auto &[pid, process] : processes_)
                if (!found && process.looked_into) found = look_in(process, line);
        }
        if (!found) ++nameless;
    }
    if (nameless > 0)
        notes_.messages.push_back(fmt::format(
            "{} waiters went on while I looked, or belong to processes that I may not look into", nameless));
}

// A process that waits for its child stands for it: whoever holds a lock may wait so, and so may its child.
void Snapshot::follow_child_waits() {
    std::vector<std::int32_t> todo;
    for (auto &[pid, process] : processes_)
        if (process.holds || !process.threads.empty()) todo.push_back(pid);
    std::set<std::int32_t> done;
    while (!todo.empty()) {
        const std::int32_t pid = todo.back();
        todo.pop_back();
        if (!done.insert(pid).second) continue;
        SeenProcess &process = processes_[pid];
        look_at_threads(process);
        const bool waits = std::any_of(process.threads.begin(), process.threads.end(),
                                       [](const auto &one) { return one.second.doing == Doing::child_wait; });
        if (!waits) continue;
        for (const auto &[other, child] : processes_)
            if (child.info.parent_pid == pid) todo.push_back(other);
    }
}

Event &Snapshot::event(const SeenProcess &who, EventKind kind, std::int32_t tid) {
    Event &made = events_.emplace_back();
    made.t_ns = now_ns_;
    made.kind = kind;
    made.process = who.image;
    made.pid = who.info.pid;
    made.tid = tid;
    if (tid == 0) return made;
    const auto [stream, fresh] = streams_.try_emplace(tid, 0);
    if (fresh) stream->second = ++streams_given_;
    made.thread = stream->second;
    return made;
}

Event &Snapshot::lock_event(const SeenProcess &who, EventKind kind, std::int32_t tid, const LockLine &line,
                            std::int32_t fd) {
    const std::uint32_t file = file_number(line);
    Event &made = event(who, kind, tid);
    made.family = line.family;
    made.mode = line.mode;
    made.flags = wire::kBlocking;
    made.fd = fd;
    made.file = file;
    made.start = line.start;
    made.len = line.len;
    return made;
}

// The description behind a descriptor, as far as it was told that somebody has a lock through it; 0: it was not.
std::uint32_t Snapshot::description_at(const Place &place) const {
    const auto known = descriptions_at_.find({place.pid, place.fd});
    return known == descriptions_at_.end() ? 0 : known->second;
}

void Snapshot::tell_holds() {
    std::uint64_t entry = 0;
    for (HeldLine &held : held_) {
        // Of those that have it, the taker is told as such when it is among them.
        const auto taker = std::find_if(held.places.begin(), held.places.end(),
                                        [&](const Place &one) { return one.pid == held.line.pid; });
        if (taker != held.places.end()) std::iter_swap(held.places.begin(), taker);
        const Place first = held.places.front();
        const SeenProcess &who = processes_[first.pid];
        const bool posix = held.line.family == wire::Family::posix;
        if (!posix) {
            // Several locks may be held through one open file, each of which has a line at each of its descriptors.
            std::uint32_t description = 0;
            for (const Place &one : held.places) description = std::max(description, description_at(one));
            if (description == 0) description = ++descriptions_;
            for (const Place &one : held.places) descriptions_at_[{one.pid, one.fd}] = description;
            held.description = description;
        }
        ++entry;
        for (const EventKind kind : {EventKind::lock_requested, EventKind::lock_acquired}) {
            Event &made = lock_event(who, kind, first.pid, held.line, posix ? kNoFd : first.fd);
            made.entry = entry;
            made.description = held.description;
        }
        if (posix) continue;
        for (const Place &other : held.places) {
            if (other.pid == first.pid && other.fd == first.fd) continue;
            Event &made = lock_event(who, EventKind::sharer_seen, first.pid, held.line, first.fd);
            made.description = held.description;
            made.other = other.pid;
            made.start = static_cast<std::uint64_t>(other.fd);
        }
    }
    // Which thread took what is not known: as after an exec, the locks are the process's, and its threads are new.
    for (auto &[pid, process] : processes_) {
        if (!process.holds) continue;
        event(process, EventKind::process_exec, pid);
        ProcessInfo again = process.info;
        again.parent_process = process.image;
        again.replaced_by_exec = true;
        process.image = ++images_given_;
        images_[process.image] = again;
        event(process, EventKind::process_started, 0);
    }
    streams_.clear();
}

void Snapshot::tell_waits() {
    std::set<std::pair<std::int32_t, std::int32_t>> blocked;
    for (const Waiting &one : waiting_) blocked.insert({one.pid, one.tid});
    for (auto &[pid, process] : processes_) {
        for (const auto &[tid, look] : process.threads) {
            if (blocked.count({pid, tid}) != 0) continue;
            const bool waits = look.doing == Doing::child_wait;
            event(process, waits ? EventKind::child_wait_begun : EventKind::child_wait_ended, tid).other =
                waits ? look.child : 0;
        }
    }
    std::uint64_t entry = std::uint64_t{1} << 32;
    for (const Waiting &one : waiting_) {
        constexpr std::int32_t kUnknownFd = 2'000'000;
        const std::int32_t fd = one.fd >= 0 ? one.fd : kUnknownFd + one.tid;
        const bool posix = one.line.family == wire::Family::posix;
        Event &made = lock_event(processes_[one.pid], EventKind::lock_requested, one.tid, one.line, posix ? kNoFd : fd);
        made.entry = ++entry;
        if (posix) continue;
        made.description = description_at({one.pid, one.fd});  // it asks for more of what it has
        if (made.description == 0) made.description = ++descriptions_;
    }
}

Result<void> Snapshot::take() {
    const std::optional<std::string> text = read_proc("/proc/locks");
    if (!text) return Error{fmt::format("cannot read /proc/locks: {}", std::strerror(errno))};
    timespec now{};
    ::clock_gettime(CLOCK_REALTIME, &now);
    now_ns_ = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    std::vector<LockLine> lines;
    std::string_view rest = *text;
    while (!rest.empty()) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(rest.size(), line.size() + 1));
        if (const std::optional<LockLine> lock = parse_lock_line(line)) lines.push_back(*lock);
    }
    read_processes();
    add_unseen(lines);
    find_waits(lines);
    follow_child_waits();
    for (auto &[pid, process] : processes_) {
        if (!process.holds && process.threads.empty()) continue;
        process.image = ++images_given_;
        images_[process.image] = process.info;
        event(process, EventKind::process_started, 0);
    }
    tell_holds();
    tell_waits();
    return {};
}

bool Snapshot::still_true(const Finding &finding) const {
    return std::all_of(finding.participants.begin(), finding.participants.end(), [&](const Participant &one) {
        const auto first = first_look_.find({one.pid, one.tid});
        if (first == first_look_.end()) return false;
        const ThreadLook now = look_at_thread(one.pid, one.tid);
        return now.doing == first->second.doing && now.fd == first->second.fd && now.switches == first->second.switches;
    });
}

}  // namespace

bool LockLine::same_lock(const LockLine &other) const {
    return family == other.family && mode == other.mode && device == other.device && inode == other.inode &&
           start == other.start && len == other.len && pid == other.pid;
}

// "1: -> FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF"
std::optional<LockLine> parse_lock_line(std::string_view text) {
    LockLine line;
    take_word(text);  // its number
    std::string_view word = take_word(text);
    while (word == "->") {
        line.waits = true;
        word = take_word(text);
    }
    if (word == "FLOCK") {
        line.family = wire::Family::flock;
    } else if (word == "POSIX") {
        line.family = wire::Family::posix;
    } else if (word == "OFDLCK") {
        line.family = wire::Family::ofd;
    } else {
        return std::nullopt;
    }
    take_word(text);  // ADVISORY
    word = take_word(text);
    if (word != "READ" && word != "WRITE") return std::nullopt;
    line.mode = word == "READ" ? wire::Mode::shared : wire::Mode::exclusive;
    const std::optional<std::int64_t> pid = to_number(take_word(text));
    std::string_view file = take_word(text);
    const std::size_t first = file.find(':');
    const std::size_t second = first == std::string_view::npos ? first : file.find(':', first + 1);
    if (!pid || second == std::string_view::npos) return std::nullopt;
    const auto major_number = to_number(file.substr(0, first), 16);
    const auto minor_number = to_number(file.substr(first + 1, second - first - 1), 16);
    const auto inode = to_number(file.substr(second + 1));
    const auto from = to_number(take_word(text));
    const std::string_view to = take_word(text);
    const auto last = to == "EOF" ? std::optional<std::int64_t>(-1) : to_number(to);
    if (!major_number || !minor_number || !inode || !from || !last) return std::nullopt;
    line.pid = static_cast<std::int32_t>(*pid);
    line.device = makedev(static_cast<unsigned>(*major_number), static_cast<unsigned>(*minor_number));
    line.inode = static_cast<std::uint64_t>(*inode);
    line.start = static_cast<std::uint64_t>(*from);
    line.len = *last < 0 ? 0 : static_cast<std::uint64_t>(*last - *from + 1);
    return line;
}

Result<std::unique_ptr<SystemSource>> look_at_system() {
    auto snapshot = std::make_unique<Snapshot>();
    if (const Result<void> taken = snapshot->take(); !taken) return taken.error();
    return std::unique_ptr<SystemSource>(std::move(snapshot));
}

}  // namespace planloop::analysis
