#include "cli/live_export.h"

#include <fmt/format.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "analysis/render/names.h"
#include "analysis/source/event_part.h"
#include "analysis/source/event_source.h"
#include "analysis/source/passing_source.h"
#include "cli/analysis_options.h"
#include "cli/exported_events.h"
#include "cli/live_watch.h"
#include "cli/output.h"
#include "lockcore/jsonl.h"
#include "lockcore/spool_reader.h"
#include "lockcore/wire/spool_writer.h"

namespace planloop::cli {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::milliseconds kLookInterval{25};
constexpr std::chrono::milliseconds kQuietInterval{75};  // when nothing has happened for kQuietLooks looks
constexpr int kQuietLooks = 80;
constexpr std::chrono::milliseconds kShortInterval{3};  // while a deadlock waits to be confirmed
constexpr std::uint64_t kEventsBetweenLooks = 4'096;    // at deadlocks, when there is no pause
constexpr std::int64_t kLongestDelayNs = 500'000'000;   // of a line in planloop.jsonl
constexpr std::size_t kMostBufferedBytes = std::size_t{256} << 10;
constexpr std::uint64_t kSlotMask = (std::uint64_t{1} << analysis::kEntryShift) - 1;

std::string_view base_name(std::string_view path) {
    return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

// What happens between the thread that supervises and the one that follows.
class Control {
  public:
    void finish_by(Clock::time_point deadline) {
        const std::lock_guard lock(mutex_);
        finish_at_ = Clock::now();
        deadline_ = deadline;
        changed_.notify_all();
    }
    bool finishing() const {
        const std::lock_guard lock(mutex_);
        return deadline_.has_value();
    }
    // Whether all that was recorded before finish_by() can have been seen by now.
    bool seen_all() const {
        const std::lock_guard lock(mutex_);
        return deadline_ && Clock::now() >= finish_at_ + std::chrono::milliseconds(10);
    }
    bool late() const {
        const std::lock_guard lock(mutex_);
        return deadline_ && Clock::now() >= *deadline_;
    }
    void pause(std::chrono::milliseconds interval) {
        std::unique_lock lock(mutex_);
        if (deadline_) {
            changed_.wait_for(lock, std::chrono::milliseconds(1));
        } else {
            changed_.wait_for(lock, interval, [&] { return deadline_.has_value(); });
        }
    }

  private:
    mutable std::mutex mutex_;
    std::condition_variable changed_;
    Clock::time_point finish_at_;
    std::optional<Clock::time_point> deadline_;
};

// Writes each event of one spool once.
class LineExport {
  public:
    LineExport(const Session &session, std::string spool_name, std::uint64_t part, ExportedEvents exported,
               LineAppender log)
        : session_id_(session.id),
          log_path_(session.log_file()),
          spool_name_(std::move(spool_name)),
          part_(part),
          exported_(std::move(exported)),
          log_(std::move(log)) {}

    void add(const analysis::TimelineEntry &entry) {
        const std::uint64_t number = number_of(entry);
        if (!error_.empty() || number >> analysis::kEntryShift != part_) return;
        if (!exported_.take(number & kSlotMask, entry.kind)) return;
        LockLine line;
        line.utc_ns = entry.utc_ns;
        line.event = analysis::event_name(entry.kind);
        line.trace_id = entry.trace_id;
        line.operation = entry.operation;
        line.lock_entry_id = entry.lock_entry_id;
        line.session_id = session_id_;
        line.pid = entry.pid;
        line.tid = entry.tid;
        line.process = entry.process;
        line.source = entry.recorded_itself ? "lockcore" : "preload";
        line.lock_id = entry.lock;
        line.family = analysis::family_name(entry.family);
        line.path = entry.path;
        line.start = entry.start;
        line.len = entry.len;
        line.mode = analysis::mode_name(entry.mode);
        line.spool = spool_name_;
        if (entry.kind == analysis::EventKind::lock_released) {
            line.hold_ns = entry.hold_ns;
            line.reason = entry.reason;
        } else if (entry.kind != analysis::EventKind::lock_requested) {
            line.wait_ns = entry.wait_ns;
            line.error = entry.error;
        }
        append_lock_line(lines_, line);
        if (lines_.size() >= kMostBufferedBytes) flush();
    }

    void flush() {
        if (lines_.empty() || !error_.empty()) return;
        Result<void> done = leaves_room(lines_.size());
        if (done) done = log_.append(lines_);
        lines_.clear();
        if (done) done = exported_.store();
        if (!done) error_ = done.error().message;
    }

    const std::string &error() const { return error_; }

  private:
    // As for a spool: the traced programs may need what is left.
    Result<void> leaves_room(std::size_t bytes) const {
        struct statvfs disk {};
        if (::statvfs(log_path_.c_str(), &disk) != 0 || disk.f_blocks == 0) return {};
        if (std::uint64_t{disk.f_bavail} * disk.f_frsize >= bytes + wire::SpoolWriter::kLeaveFreeBytes) return {};
        return Error{fmt::format("the disk of {} has less than {} MiB left", printable(log_path_),
                                 wire::SpoolWriter::kLeaveFreeBytes >> 20)};
    }
    // lock_entry_id is Event::entry in hex: the part of the session that it comes from, and the slot of its record
    // there.
    static std::uint64_t number_of(const analysis::TimelineEntry &entry) {
        const std::string_view digits = entry.lock_entry_id;
        std::uint64_t number = ~std::uint64_t{0};
        std::from_chars(digits.data(), digits.data() + digits.size(), number, 16);
        return number;
    }

    std::string session_id_, log_path_, spool_name_, lines_, error_;
    std::uint64_t part_;
    ExportedEvents exported_;
    LineAppender log_;
};

// The live session as a source that ends when the run does.
class FollowedSource : public analysis::PassingSource {
  public:
    FollowedSource(std::unique_ptr<EventSource> inner, Control &control, LineExport *lines, LiveWatch *watch)
        : PassingSource(std::move(inner)), control_(control), lines_(lines), watch_(watch) {}

    bool next(analysis::Event &event) override {
        for (;;) {
            if (control_.late()) {
                cut_short_ = true;
                return false;
            }
            // A call after one that gave false looks for what was written since: the end is where such a look, made
            // after the programs ended, has been read to its end.
            looked_at_end_ = looked_at_end_ || (looks_next_ && control_.seen_all());
            const bool found = PassingSource::next(event);
            looks_next_ = !found;
            const bool look = watch_ != nullptr && (!found || ++events_ % kEventsBetweenLooks == 0);
            const bool soon = look && watch_->look();
            if (found) {
                quiet_ = 0;
                return true;
            }
            if (looked_at_end_) return false;
            if (lines_ != nullptr) lines_->flush();
            quiet_ = std::min(quiet_ + 1, kQuietLooks);
            control_.pause(soon ? kShortInterval : quiet_ == kQuietLooks ? kQuietInterval : kLookInterval);
        }
    }
    // Whether events are missing at the end, so that conclusions about the end would be wrong.
    bool cut_short() const { return cut_short_; }

  private:
    bool cut_short_ = false;
    bool looks_next_ = false;
    bool looked_at_end_ = false;
    Control &control_;
    LineExport *lines_;
    LiveWatch *watch_;
    std::uint64_t events_ = 0;
    int quiet_ = 0;  // looks since the last event
};

// The event source counts the spools that it can read.
std::uint64_t part_of(const Session &session, const std::string &spool_path) {
    std::size_t others = 0;
    if (const auto paths = list_spools(session)) {
        for (const std::string &path : *paths)
            others += base_name(path) != base_name(spool_path) && SpoolReader::open(path) ? 1U : 0U;
    }
    return analysis::spool_number(others);
}

Result<LineExport> open_export(const Session &session, const std::string &spool_path) {
    const std::string spool_name(base_name(spool_path));
    Result<ExportedEvents> exported = ExportedEvents::load(session.logs_dir() + "/." + spool_name + ".exported");
    if (!exported) return exported.error();
    Result<LineAppender> log = LineAppender::open(session.log_file());
    if (!log) return log.error();
    const std::uint64_t part = part_of(session, spool_path);
    return LineExport(session, spool_name, part, std::move(*exported), std::move(*log));
}

}  // namespace

struct LiveExport::Shared {
    Session session;
    Wanted wanted;
    Control control;

    std::mutex mutex;  // guards what follows
    std::condition_variable done;
    bool finished = false;
    bool abandoned = false;
    Outcome outcome;
    Clock::time_point deadline;

    void follow();
    void conclude(Outcome result);
    void tell(const analysis::Finding &deadlock);
    void raise(int fd) const;  // with `mutex` held
};

void LiveExport::Shared::follow() {
    Outcome result;
    std::optional<LineExport> lines;
    if (wanted.export_lines) {
        if (Result<LineExport> opened = open_export(session, wanted.spool_path)) {
            lines.emplace(std::move(*opened));
        } else {
            result.error = opened.error().message;
        }
    }
    analysis::SourceOptions source_options;
    source_options.follow = true;
    source_options.own_spool = wanted.spool_path;
    source_options.over = [this] { return control.seen_all(); };
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session, source_options);
    if (!source) {
        result.error = source.error().message;
        conclude(std::move(result));
        return;
    }
    LiveWatch watch([this](const analysis::Finding &deadlock) { tell(deadlock); });
    FollowedSource followed(std::move(*source), control, lines ? &*lines : nullptr,
                            wanted.tell_deadlocks ? &watch : nullptr);
    analysis::AnalysisOptions options = options_for(session);
    if (wanted.tell_deadlocks) options.listener = &watch;
    options.longest_delay_ns = kLongestDelayNs;
    options.named_call_sites = 0;  // what is said at the end of a run needs none
    analysis::TimelineSink sink;
    if (lines) {
        sink = [&](const analysis::TimelineEntry &entry) {
            if (!followed.cut_short()) lines->add(entry);
        };
    }
    analysis::Report report = analysis::analyse(followed, options, sink);
    // What came out of order was not seen as a later reader sees it, nor what a ring lost before it could be read here,
    // nor a spool for which no descriptor was left: then somebody has to look once more.
    const analysis::SourceNotes notes = followed.notes();
    if (!followed.cut_short() && notes.late == 0 && !notes.overwritten && !notes.own_unread)
        result.report = std::move(report);
    result.unread = LiveExport::unread_in(notes);
    if (lines) {
        lines->flush();
        result.error = lines->error();
    }
    conclude(std::move(result));
}

void LiveExport::Shared::conclude(Outcome result) {
    const std::lock_guard lock(mutex);
    outcome = std::move(result);
    finished = true;
    done.notify_all();
    raise(wanted.finished_fd);
}

void LiveExport::Shared::raise(int fd) const {
    const std::uint64_t one = 1;
    if (!abandoned && fd >= 0) static_cast<void>(::write(fd, &one, sizeof(one)) == 0);
}

void LiveExport::Shared::tell(const analysis::Finding &deadlock) {
    say(standing_sentence(deadlock));
    const std::lock_guard lock(mutex);
    raise(wanted.deadlock_fd);
}

LiveExport::LiveExport(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
LiveExport::LiveExport(LiveExport &&) noexcept = default;
LiveExport &LiveExport::operator=(LiveExport &&) noexcept = default;

LiveExport::~LiveExport() {
    if (shared_ == nullptr) return;
    const std::lock_guard lock(shared_->mutex);
    shared_->abandoned = true;
}

LiveExport LiveExport::start(const Session &session, const Wanted &wanted) {
    auto shared = std::make_shared<Shared>();
    shared->session = session;
    shared->wanted = wanted;
    std::thread([shared] {
        try {
            shared->follow();
        } catch (const std::exception &failure) {  // no memory, most likely: the program goes on
            shared->conclude({std::nullopt, failure.what(), {}});
        }
    }).detach();
    return LiveExport(std::move(shared));
}

std::string LiveExport::unread_in(const analysis::SourceNotes &notes) {
    if (notes.unread == 0) return {};
    const std::string &first = notes.messages.front();
    return notes.unread == 1 ? first : fmt::format("{} (and {} more)", first, notes.unread - 1);
}

void LiveExport::finish_soon(std::chrono::milliseconds patience) {
    shared_->deadline = Clock::now() + patience;
    shared_->control.finish_by(shared_->deadline);
}

LiveExport::Outcome LiveExport::outcome() {
    // The analysis stops taking events at the deadline; drawing its conclusions may take a little longer.
    constexpr std::chrono::milliseconds kConclusions{200};
    std::unique_lock lock(shared_->mutex);
    const bool finished =
        shared_->done.wait_until(lock, shared_->deadline + kConclusions, [&] { return shared_->finished; });
    return finished ? shared_->outcome : Outcome{};
}

}  // namespace planloop::cli
