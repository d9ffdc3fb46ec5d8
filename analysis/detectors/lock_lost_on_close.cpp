// POSIX locks that their process lost by closing another descriptor of the file: close(2) of any of them releases all
// the locks that the process has on the file (fcntl(2)), often one that a library opened and closed for itself.
#include <fmt/format.h>

#include <map>
#include <memory>

#include "analysis/detector.h"
#include "analysis/words.h"

namespace planloop::analysis {
namespace {

class LockLostOnClose : public Detector {
  public:
    using Detector::Detector;

    void event(const Event &event) override {
        closing_ = event.kind == EventKind::descriptor_closed;
        if (!closing_) return;
        fd_ = event.fd;
        const auto cause = static_cast<wire::CloseCause>(event.other);
        // Whoever closes all it has, at its end or in one call, wants to be rid of the lock too.
        by_choice_ = cause == wire::CloseCause::close || cause == wire::CloseCause::replaced ||
                     cause == wire::CloseCause::stream;
    }

    void hold_ended(Index index, const HoldEnd &end) override {
        if (!closing_ || !by_choice_ || end.reason != Reason::close || end.certainty != EndCertainty::exact) return;
        const Hold &hold = model().holds[index];
        const wire::Family family = model().locks[hold.lock].family;
        if (family != wire::Family::posix && family != wire::Family::posix_thread) return;
        if (hold.fd < 0 || hold.fd == fd_) return;
        Found &found = by_lock_[hold.lock];
        if (found.times++ > 0) return;
        found = {1, end.t_ns, end.t_ns - hold.since_ns, end.image, end.pid, end.tid, hold.fd, fd_};
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const auto &[lock, found] : by_lock_) {
            Finding finding;
            finding.kind = "lock_lost_on_close";
            finding.certainty = Certainty::confirmed;
            finding.from_ns = finding.to_ns = found.t_ns - report.from_utc_ns;
            finding.locks.push_back(model().locks[lock].id);
            finding.participants.push_back(participant_of(model(), found.image, found.pid, found.tid));
            finding.summary = fmt::format(
                "{} lost its lock on {}, taken through descriptor {} {} before, when it closed descriptor {} of the "
                "same file",
                thread_words(model(), found.image, found.pid, found.tid), lock_words(model(), lock), found.locked_fd,
                duration_words(found.held_ns), found.closed_fd);
            if (found.times > 1) finding.summary += fmt::format(" (the first of {} times)", found.times);
            finding.summary +=
                ". The kernel drops all POSIX locks of a process on a file with its first close of any descriptor of "
                "that file. Keep the file open once, close nothing of it before the work is done, or lock with flock "
                "or OFD locks, which belong to the descriptor.";
            report.findings.push_back(std::move(finding));
        }
    }

  private:
    struct Found {
        std::uint64_t times = 0;
        std::int64_t t_ns = 0, held_ns = 0;
        std::uint32_t image = 0;
        std::int32_t pid = 0, tid = 0;
        std::int64_t locked_fd = -1, closed_fd = -1;
    };
    std::map<Index, Found> by_lock_;
    // The event being applied.
    bool closing_ = false, by_choice_ = false;
    std::int32_t fd_ = -1;
};

}  // namespace

std::unique_ptr<Detector> make_lock_lost_on_close(const Model &model) {
    return std::make_unique<LockLostOnClose>(model);
}

}  // namespace planloop::analysis
