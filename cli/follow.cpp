#include "cli/follow.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "analysis/render/json.h"
#include "analysis/source/event_source.h"
#include "analysis/source/passing_source.h"
#include "cli/live_watch.h"
#include "cli/output.h"
#include "lockcore/closed_spool.h"
#include "lockcore/descriptor.h"
#include "lockcore/process_status.h"
#include "lockcore/wire/spool_format.h"

namespace planloop::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr timespec kLookInterval{0, 20'000'000};
constexpr timespec kShortInterval{0, 3'000'000};
constexpr std::chrono::milliseconds kRollCall{200};   // between two looks at whether anybody is left
constexpr std::chrono::milliseconds kBeginning{500};  // in which somebody may come into a session without any event
constexpr std::int64_t kLongestDelayNs = 500'000'000;

volatile sig_atomic_t interrupted = 0;

void interrupt(int /*signal*/) {
    interrupted = 1;
}

// SIGINT and SIGTERM end the following and not the command; they arrive only while it pauses or between two events.
void catch_signals() {
    struct sigaction action {};
    action.sa_handler = interrupt;
    ::sigemptyset(&action.sa_mask);
    for (const int number : {SIGINT, SIGTERM}) ::sigaction(number, &action, nullptr);
}

// Whether some process has one of the session's spools mapped. Looks at all processes of the machine.
bool mapped_by_anybody(const Session &session) {
    const auto spools = list_spools(session);
    if (!spools) return false;
    const MappedFiles mapped = mapped_spools();
    return std::any_of(spools->begin(), spools->end(), [&](const std::string &path) {
        struct stat status {};
        return ::stat(path.c_str(), &status) == 0 && mapped.count({status.st_dev, status.st_ino}) != 0;
    });
}

// Whether a `dev run` records into one of the session's spools.
bool supervised(const Session &session) {
    const auto spools = list_spools(session);
    if (!spools) return false;
    for (const std::string &path : *spools) {
        const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
        std::int32_t pid = 0;
        constexpr off_t kPlace = offsetof(wire::SpoolHeader, supervisor);
        if (::pread(file.get(), &pid, sizeof(pid), kPlace) != static_cast<ssize_t>(sizeof(pid)) || pid <= 0) continue;
        const std::optional<ProcessStatus> status = process_status(pid);
        if (status && status->name == "planloop" && !status->ended()) return true;
    }
    return false;
}

class LiveSource : public analysis::PassingSource {
  public:
    LiveSource(const Session &session, std::unique_ptr<EventSource> inner, LiveWatch &watch, bool &over)
        : PassingSource(std::move(inner)), session_(session), over_(over), watch_(watch) {}

    bool next(analysis::Event &event) override {
        while (interrupted == 0) {
            if (PassingSource::next(event)) {
                over_ = false;
                seen_any_ = true;
                note(event);
                return true;
            }
            if (over_) return false;
            const bool soon = watch_.look();
            if (!finish_out()) return false;
            // What was recorded before everybody was gone is found by the look after the next pause.
            over_ = Clock::now() >= next_roll_call_ && everybody_gone();
            ::ppoll(nullptr, 0, soon && !over_ ? &kShortInterval : &kLookInterval, nullptr);
        }
        return false;
    }

  private:
    void note(const analysis::Event &event) {
        if (event.kind == analysis::EventKind::process_started)
            running_[process(event.process).pid] = process(event.process).start_time;
        if (event.kind == analysis::EventKind::process_ended) running_.erase(event.pid);
    }
    bool anybody_left() {
        for (auto at = running_.begin(); at != running_.end(); at = running_.erase(at))
            if (process_runs(at->first, at->second)) return true;
        return supervised(session_) || mapped_by_anybody(session_);
    }
    bool everybody_gone() {
        next_roll_call_ = Clock::now() + kRollCall;
        const bool left = anybody_left();
        if (left || !alone_since_) alone_since_ = Clock::now();
        return !left && (seen_any_ || Clock::now() >= *alone_since_ + kBeginning);
    }

    const Session &session_;
    bool &over_;  // nobody writes any more, as far as is known
    LiveWatch &watch_;
    std::map<std::int32_t, std::uint64_t> running_;  // pid, start time
    Clock::time_point next_roll_call_;
    std::optional<Clock::time_point> alone_since_;
    bool seen_any_ = false;
};

}  // namespace

Result<analysis::Report> follow_session(const Session &session, analysis::AnalysisOptions options, bool json,
                                        const analysis::TextStyle &style) {
    analysis::SourceOptions following;
    bool over = false;
    following.follow = true;
    following.over = [&over] { return over; };
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session, following);
    if (!source) return source.error();
    catch_signals();
    LiveWatch watch([](const analysis::Finding &deadlock) { say(standing_sentence(deadlock)); });
    LiveSource live(session, std::move(*source), watch, over);
    options.listener = &watch;
    options.longest_delay_ns = kLongestDelayNs;
    std::string row;
    bool any = false;
    const analysis::TimelineSink sink = [&](const analysis::TimelineEntry &entry) {
        row.clear();
        if (json) {
            analysis::append_json(row, entry);
            row.push_back('\n');
        } else {
            analysis::append_text(row, entry, style);
        }
        any = write_out(row);
    };
    analysis::Report report = analysis::analyse(live, options, sink);
    for (const std::string &note : report.notes) say(note);
    if (json) return report;
    if (any) write_out("\n");
    write_out(analysis::render_text(report, style));
    return report;
}

Result<analysis::Report> show_waiting(const Session &session, const analysis::AnalysisOptions &options, bool json,
                                      const analysis::TextStyle &style) {
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session);
    if (!source) return source.error();
    analysis::Report report = analysis::analyse(**source, options);
    for (const std::string &note : report.notes) say(note);
    std::sort(report.waiting.begin(), report.waiting.end(), [](const auto &a, const auto &b) {
        return std::tie(a.path, a.lock, a.since_ns, a.lock_entry_id) <
               std::tie(b.path, b.lock, b.since_ns, b.lock_entry_id);
    });
    write_out(json ? analysis::json_waiting(report) : analysis::render_waiting(report, style));
    return report;
}

}  // namespace planloop::cli
