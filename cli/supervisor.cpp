#include "cli/supervisor.h"

#include <fmt/format.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <optional>

#include "cli/process_watch.h"
#include "cli/share_scan.h"
#include "cli/untraced_scan.h"
#include "lockcore/descriptor.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

constexpr int kBusyLookMs = 2;  // between two looks for new processes while there are some
constexpr int kIdleLookMs = 8;  // when there were none for a while
// When there were none for kQuietAfter: each time that it wakes up takes the kernel some 30 us.
constexpr int kQuietLookMs = 20;
constexpr std::chrono::seconds kQuietAfter{2};
constexpr std::chrono::milliseconds kPatience{700};  // for the log, once the program has ended

// Data of an epoll event; a pid otherwise, which is smaller than these.
constexpr std::uint64_t kSignals = std::uint64_t{1} << 40;
constexpr std::uint64_t kFinished = kSignals + 1;
constexpr std::uint64_t kDeadlock = kSignals + 2;
constexpr std::chrono::seconds kTermination{2};  // between SIGTERM and SIGKILL

void add_to(int epoll_fd, int fd, std::uint64_t data) {
    epoll_event wanted{};
    wanted.events = EPOLLIN;
    wanted.data.u64 = data;
    ::epoll_ctl(epoll_fd, EPOLL_CTL_ADD, fd, &wanted);
}

// The terminal signals the whole foreground process group, in which the program is too: to forward would signal it
// twice. Only a hang-up goes to the session's leader alone.
bool to_forward(const signalfd_siginfo &signal) {
    const auto number = static_cast<int>(signal.ssi_signo);
    if (number == SIGCHLD || number == SIGCONT) return false;
    if (signal.ssi_code != SI_KERNEL) return true;
    return number == SIGHUP && ::getsid(0) == ::getpid();
}

class Supervisor {
  public:
    Supervisor(const Session &session, SupervisedSpool &spool, const Child &child, int epoll_fd, int signal_fd,
               int finished_fd, int deadlock_fd)
        : session_(session),
          spool_(spool),
          child_(child.pid),
          epoll_fd_(epoll_fd),
          signal_fd_(signal_fd),
          finished_fd_(finished_fd),
          deadlock_fd_(deadlock_fd),
          watch_(spool, epoll_fd),
          shares_(spool, watch_),
          untraced_(spool, child.pid) {
        watch_.add_child(child.pid, child.pidfd);
        add_to(epoll_fd, signal_fd, kSignals);
        add_to(epoll_fd, finished_fd, kFinished);
        if (deadlock_fd >= 0) add_to(epoll_fd, deadlock_fd, kDeadlock);
    }

    Supervised run() {
        while (!done()) {
            look_around();
            epoll_event events[64];
            const int count = ::epoll_wait(epoll_fd_, events, 64, look_ms_);
            const std::uint64_t now = spool_.ticks();
            for (int i = 0; i < count; ++i) handle(events[i].data.u64, now);
        }
        Supervised result;
        result.wait_status = *wait_status_;
        result.terminated = kill_at_.has_value();
        result.ended_at = give_up_at_ - kPatience;
        if (export_) result.outcome = export_->outcome();
        return result;
    }

  private:
    bool done() const { return wait_status_ && (finished_ || std::chrono::steady_clock::now() >= give_up_at_); }

    void look_around() {
        spool_.reserve_ahead();
        bool any = false;
        if (spool_.try_to_lead()) {
            if (!export_) start_export(true);
            const bool shares = shares_.look();
            any = watch_.look() || shares;
            const auto now = std::chrono::steady_clock::now();
            if (any || spool_.claimed_bytes() != claimed_bytes_) last_news_ = now;
            claimed_bytes_ = spool_.claimed_bytes();
            const int most_ms = now - last_news_ < kQuietAfter ? kIdleLookMs : kQuietLookMs;
            look_ms_ = any ? kBusyLookMs : std::min(look_ms_ + 1, most_ms);
        } else {
            look_ms_ = kIdleLookMs;
        }
        if (!wait_status_) untraced_.look(any);
        if (wait_status_) look_ms_ = kBusyLookMs;
        if (kill_at_ && !killed_ && std::chrono::steady_clock::now() >= *kill_at_) {
            killed_ = true;
            watch_.signal_all(SIGKILL);
        }
    }

    void start_export(bool leads) {
        export_ = LiveExport::start(session_, {spool_.path(), leads, true, finished_fd_, deadlock_fd_});
    }

    void end_programs() {
        std::uint64_t value = 0;
        static_cast<void>(::read(deadlock_fd_, &value, sizeof(value)) == 0);
        if (kill_at_) return;
        kill_at_ = std::chrono::steady_clock::now() + kTermination;
        watch_.look();
        watch_.signal_all(SIGTERM);
    }

    void handle(std::uint64_t what, std::uint64_t now) {
        if (what == kSignals) {
            read_signals(now);
        } else if (what == kFinished) {
            finished_ = true;
            std::uint64_t value = 0;
            static_cast<void>(::read(finished_fd_, &value, sizeof(value)) == 0);
        } else if (what == kDeadlock) {
            end_programs();
        } else if (static_cast<pid_t>(what) == child_) {
            check_child(now);
        } else {
            watch_.ended(static_cast<pid_t>(what), -1, now);
        }
    }

    void read_signals(std::uint64_t now) {
        signalfd_siginfo signal{};
        bool child_changed = false;
        bool continued = false;
        while (::read(signal_fd_, &signal, sizeof(signal)) == static_cast<ssize_t>(sizeof(signal))) {
            child_changed |= signal.ssi_signo == SIGCHLD;
            continued |= signal.ssi_signo == SIGCONT;
            if (!wait_status_ && to_forward(signal)) ::kill(child_, static_cast<int>(signal.ssi_signo));
        }
        if (continued) continue_child();
        if (child_changed) check_child(now, continued);
    }

    // Who continues this process means the program too; most often the shell did so to the whole group.
    void continue_child() const {
        const std::optional<ProcessStatus> status = wait_status_ ? std::nullopt : process_status(child_);
        if (status && status->state == 'T') ::kill(child_, SIGCONT);
    }

    void check_child(std::uint64_t now, bool continued = false) {
        if (wait_status_) return;
        int status = 0;
        const pid_t changed = ::waitpid(child_, &status, WNOHANG | WUNTRACED);
        if (changed < 0 && errno != EINTR) status = 0;  // somebody else collected it: nothing is known
        if (changed == 0 || (changed < 0 && errno == EINTR)) return;
        if (changed > 0 && WIFSTOPPED(status)) {
            // The program stopped itself: whoever waits for planloop must see it stopped. (When the terminal stopped
            // both, this comes after the fact, with SIGCONT.)
            if (!continued) ::raise(SIGSTOP);
            return;
        }
        wait_status_ = status;
        watch_.ended(child_, status, now);
        watch_.look(true);
        if (!export_) start_export(spool_.try_to_lead());
        export_->finish_soon(kPatience);
        give_up_at_ = std::chrono::steady_clock::now() + kPatience;
    }

    const Session &session_;
    SupervisedSpool &spool_;
    pid_t child_;
    int epoll_fd_, signal_fd_, finished_fd_, deadlock_fd_;
    ProcessWatch watch_;
    ShareScan shares_;
    UntracedScan untraced_;
    std::optional<LiveExport> export_;
    std::optional<int> wait_status_;
    std::chrono::steady_clock::time_point give_up_at_;
    std::optional<std::chrono::steady_clock::time_point> kill_at_;  // set: a deadlock ends the program
    bool killed_ = false;
    bool finished_ = false;
    std::chrono::steady_clock::time_point last_news_ = std::chrono::steady_clock::now();
    std::uint64_t claimed_bytes_ = 0;  // at the last look
    int look_ms_ = kBusyLookMs;
};

}  // namespace

sigset_t supervised_signals() {
    sigset_t signals{};
    ::sigemptyset(&signals);
    for (const int number : {SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGUSR1, SIGUSR2, SIGCONT, SIGWINCH, SIGCHLD}) {
        ::sigaddset(&signals, number);
    }
    return signals;
}

Result<Supervised> supervise(const Session &session, SupervisedSpool &spool, const Child &child,
                             OnDeadlock on_deadlock) {
    const Descriptor epoll(::epoll_create1(EPOLL_CLOEXEC));
    const sigset_t signals = supervised_signals();
    const Descriptor signal(::signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK));
    const Descriptor finished(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const Descriptor deadlock(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (epoll.get() < 0 || signal.get() < 0 || finished.get() < 0 || deadlock.get() < 0) {
        return Error{fmt::format("cannot watch the program: {}", std::strerror(errno))};
    }
    return Supervisor(session, spool, child, epoll.get(), signal.get(), finished.get(),
                      on_deadlock == OnDeadlock::terminate ? deadlock.get() : -1)
        .run();
}

}  // namespace planloop::cli
