#include "lockcore/session_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <mutex>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "lockcore/clock.h"
#include "lockcore/descriptor.h"
#include "lockcore/file_lock.h"
#include "lockcore/foreign_lock.h"
#include "lockcore/jsonl.h"
#include "lockcore/no_cancellation.h"
#include "lockcore/operation_trace.h"
#include "lockcore/session_journal.h"
#include "lockcore/ticket_queue.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using Clock = SessionLock::Clock;

constexpr std::string_view kOurMark = "{\"guard\":";
constexpr auto kStalled = 500ms;  // 5 turns of the Python planloop

[[noreturn]] void fail(std::string_view what, const std::string &path, int error) {
    throw std::system_error(std::error_code(error, std::system_category()),
                            fmt::format("cannot {} {}", what, printable(path)));
}

std::string made_folder(const std::string &path) {
    if (::mkdir(path.c_str(), 0700) != 0 && errno != EEXIST) fail("create", path, errno);
    return path;
}

std::int64_t ns_since(Clock::time_point begin) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now() - begin).count();
}

std::string entry_name() {
    static std::atomic<std::uint32_t> count{0};
    return fmt::format("{:x}-{:x}-{:x}", ::getpid(), utc_now_ns(), count.fetch_add(1, std::memory_order_relaxed));
}

}  // namespace

class SessionLock::State {
  public:
    State(const Session &session, Options options)
        : session_(session),
          options_(std::move(options)),
          scratch_(made_folder(session.directory + "/.lock_wait")),
          queue_(scratch_,
                 [session](std::uint64_t ticket) {  // its owner is dead
                     ::unlink(lock_files::entry(session, ticket).c_str());
                     ::unlink((session.directory + "/.lock_wait/" + lock_files::entry_id(ticket)).c_str());
                 }),
          guard_(scratch_ + "/guard", FileLock::Recorded::no),
          journal_(session) {
        made_folder(lock_files::queue(session));
    }

    bool acquire(Clock::time_point deadline);
    void release();
    const Options &options() const { return options_; }
    const std::optional<Stall> &stall() const { return stall_; }
    std::string time_out_message() const {
        const std::lock_guard guard(message_mutex_);
        return message_;
    }

  private:
    class Turn;
    std::string operation() const {
        if (!options_.operation.empty()) return options_.operation;
        const std::string current = current_trace().operation;
        return current.empty() ? "lock" : current;
    }

    Session session_;
    Options options_;
    std::string scratch_;
    TicketQueue queue_;
    FileLock guard_;
    SessionJournal journal_;

    mutable std::mutex message_mutex_;
    std::string message_;

    // Of the holder; written by who has the guard.
    pid_t holder_ = 0;
    TicketQueue::Ticket ticket_;
    std::string operation_, entry_name_;
    Clock::time_point acquired_at_;
    std::optional<Stall> stall_;
};

// One request from its beginning to its end, on one thread.
class SessionLock::State::Turn {
  public:
    Turn(State &state, Clock::time_point deadline)
        : state_(state),
          deadline_(deadline),
          begun_(Clock::now()),
          operation_(state.operation()),
          entry_name_(entry_name()),
          foreign_(state.session_, state.journal_),
          look_at_(begun_ + kStalled) {}
    ~Turn() {
        if (!told_) give_up(ECANCELED);  // the thread is cancelled while it sleeps, or on_position threw
        if (placed_) ::unlink(lock_files::lock(state_.session_).c_str());
        if (ticket_) ::unlink(lock_files::entry(state_.session_, ticket_.number()).c_str());
        if (guarded_) state_.guard_.unlock();
    }
    Turn(const Turn &) = delete;
    Turn &operator=(const Turn &) = delete;

    bool run();

  private:
    bool sleep(int first_fd, int second_fd, Clock::time_point look_again = kNoDeadline);
    bool sleep_behind(const Obstacle &obstacle);
    bool wait_for_turn();
    bool place_lock();
    void write_files();
    void tell_position(std::size_t before_us);
    void look_for_stall();
    void finish();
    void give_up(int error);

    NoCancellation no_cancellation_;
    State &state_;
    Clock::time_point deadline_, begun_;
    std::string operation_, entry_name_;
    TicketQueue::Ticket ticket_;
    bool guarded_ = false, placed_ = false;
    bool told_ = false;  // how it ended
    std::size_t before_us_ = 0;
    bool position_told_ = false;
    ForeignLock foreign_;

    Clock::time_point look_at_;  // for a stall
    std::optional<LockHolder> seen_inside_;
    Clock::time_point seen_since_;
    std::optional<Stall> stall_;
};

bool SessionLock::State::Turn::run() {
    state_.journal_.write({"lock_requested", operation_, entry_name_});
    try {
        ticket_ = state_.queue_.take(deadline_);
        if (ticket_) {
            write_files();
            if (wait_for_turn() && (guarded_ = state_.guard_.try_lock_until(deadline_)) && place_lock()) {
                finish();
                return true;
            }
        }
    } catch (const std::system_error &error) {
        give_up(error.code().value());
        throw;
    }
    give_up(deadline_ <= begun_ ? EAGAIN : ETIMEDOUT);
    return false;
}

void SessionLock::State::Turn::write_files() {
    LockWaiter waiter;
    waiter.id = lock_files::entry_id(ticket_.number());
    const char *agent = std::getenv("PLANLOOP_AGENT_NAME");  // NOLINT(concurrency-mt-unsafe)
    waiter.agent = agent != nullptr && *agent != '\0' ? agent : fmt::format("pid:{}", ::getpid());
    waiter.operation = operation_;
    waiter.requested_utc_us = ticket_.utc_us();
    waiter.ticket = ticket_.number();
    waiter.pid = ::getpid();
    const int error = lock_files::write_entry(state_.session_, state_.scratch_, waiter);
    if (error != 0) fail("write to", lock_files::queue(state_.session_), error);
}

// False: time is up. Wakes for the deadline, for what it waits for (-1: nothing), for `look_again`, and now and then
// for a look at who is inside; only the last of these goes back to sleep.
bool SessionLock::State::Turn::sleep(int first_fd, int second_fd, Clock::time_point look_again) {
    pollfd wanted[] = {{first_fd, POLLIN, 0}, {second_fd, POLLIN, 0}};
    for (;;) {
        const auto now = Clock::now();
        if (now >= deadline_) return false;
        if (now >= look_again) return true;
        if (now >= look_at_) look_for_stall();
        const auto wait = std::min({deadline_, look_again, look_at_}) - now;
        const auto ns = std::max<std::int64_t>(std::chrono::nanoseconds(wait).count(), 0);
        const timespec time{ns / 1'000'000'000, ns % 1'000'000'000};
        if (no_cancellation_.except([&] { return ::ppoll(wanted, 2, &time, nullptr); }) > 0) return true;
    }
}

bool SessionLock::State::Turn::sleep_behind(const Obstacle &obstacle) {
    tell_position(obstacle.before_us);
    return sleep(obstacle.watch.get(), obstacle.process.get(), obstacle.look_again);
}

bool SessionLock::State::Turn::wait_for_turn() {
    for (;;) {
        const TicketQueue::Before before = state_.queue_.before(ticket_);
        const Descriptor nearest(before.fd);
        if (nearest.get() >= 0) {
            tell_position(before.count);
            if (!sleep(nearest.get(), -1)) return false;
            continue;
        }
        const auto obstacle = foreign_.entries_before(ticket_.utc_us());
        if (!obstacle) return true;
        if (!sleep_behind(*obstacle)) return false;
    }
}

// Makes `.lock` with its content in one step that fails if it is there.
bool SessionLock::State::Turn::place_lock() {
    const std::string path = lock_files::lock(state_.session_);
    const std::string unfinished = state_.scratch_ + "/lock";
    const std::string text = fmt::format("{}\".lock_wait/guard\",\"held_by\":\"pid:{}\",\"ticket\":{}}}\n", kOurMark,
                                         ::getpid(), ticket_.number());
    const int fd = ::open(unfinished.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0) fail("write", unfinished, errno);
    const ssize_t wrote = ::write(fd, text.data(), text.size());
    const int error = wrote < 0 ? errno : static_cast<std::size_t>(wrote) < text.size() ? ENOSPC : 0;
    ::close(fd);
    if (error != 0) fail("write", unfinished, error);
    for (;;) {
        if (::link(unfinished.c_str(), path.c_str()) == 0) {
            ::unlink(unfinished.c_str());
            return placed_ = true;
        }
        if (errno != EEXIST) fail("create", path, errno);
        char mark[kOurMark.size()] = {};
        const Descriptor present(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
        const bool ours = present.get() >= 0 && ::read(present.get(), mark, sizeof(mark)) == sizeof(mark) &&
                          std::string_view(mark, sizeof(mark)) == kOurMark;
        if (ours) {  // we have the guard, so whoever made it is dead; replaced, not removed: no gap for another program
            if (::rename(unfinished.c_str(), path.c_str()) != 0) fail("create", path, errno);
            state_.journal_.write("WARNING", operation_, "took over the lock of a planloop that died inside");
            return placed_ = true;
        }
        if (const auto obstacle = foreign_.lock(operation_); obstacle && !sleep_behind(*obstacle)) return false;
    }
}

void SessionLock::State::Turn::tell_position(std::size_t before_us) {
    if (position_told_ && before_us == before_us_) return;
    position_told_ = true;
    before_us_ = before_us;
    if (state_.options_.on_position) state_.options_.on_position(before_us);
}

// Who is inside is looked at from time to time, ever more rarely: a wait must cost nothing.
void SessionLock::State::Turn::look_for_stall() {
    const auto now = Clock::now();
    const auto inside = lock_files::read_info(state_.session_);
    const bool same = inside && seen_inside_ && inside->held_by == seen_inside_->held_by &&
                      inside->since_utc_ns == seen_inside_->since_utc_ns;
    if (!same) {
        seen_inside_ = inside;
        seen_since_ = now;
        look_at_ = now + kStalled;
        return;
    }
    const auto seen_for = std::chrono::duration_cast<std::chrono::milliseconds>(now - seen_since_);
    look_at_ = now + std::min<Clock::duration>(seen_for, 10s);
    const bool news = !stall_ || stall_->holder.since_utc_ns != inside->since_utc_ns;
    stall_ = Stall{*inside, seen_for, before_us_};
    if (!news) return;
    std::string context = "{\"kind\":\"queue_stall\",\"held_by\":";
    append_json_string(context, inside->held_by);
    context += fmt::format(",\"before_us\":{}}}", before_us_);
    state_.journal_.write("WARNING", operation_,
                          fmt::format("the queue does not move: {} has been inside for {} ms and more",
                                      inside->description(), seen_for.count()),
                          context);
}

void SessionLock::State::Turn::finish() {
    State &state = state_;
    const LockHolder holder{fmt::format("pid:{}", ::getpid()), operation_, utc_now_ns()};
    if (const int error = lock_files::write_info(state.session_, state.scratch_, holder); error != 0) {
        fail("write", lock_files::info(state.session_), error);
    }
    state.holder_ = ::getpid();
    state.ticket_ = std::move(ticket_);
    state.operation_ = operation_;
    state.entry_name_ = entry_name_;
    state.stall_ = stall_;
    state.acquired_at_ = Clock::now();
    guarded_ = placed_ = false;  // from here on release() gives it back
    told_ = true;
    state.journal_.write({"lock_acquired", operation_, entry_name_, ns_since(begun_)});
}

void SessionLock::State::Turn::give_up(int error) {
    told_ = true;
    state_.journal_.write({"lock_failed", operation_, entry_name_, ns_since(begun_), -1, error});
    const auto inside = lock_files::read_info(state_.session_);
    const auto waited = std::chrono::duration_cast<std::chrono::milliseconds>(Clock::now() - begun_);
    const std::lock_guard guard(state_.message_mutex_);
    state_.message_ =
        fmt::format("session '{}' is locked by {}; gave up after {} ms, {} before us", printable(state_.session_.id),
                    inside.value_or(LockHolder{}).description(), waited.count(), before_us_);
}

bool SessionLock::State::acquire(Clock::time_point deadline) {
    return Turn(*this, deadline).run();
}

void SessionLock::State::release() {
    if (holder_ != ::getpid()) return;  // nobody, or the parent of this process
    const NoCancellation giving_back;
    holder_ = 0;
    journal_.write({"lock_released", operation_, entry_name_, -1, ns_since(acquired_at_)});
    TicketQueue::Ticket ticket = std::move(ticket_);
    // .lock last: a program that makes its own then must not lose its .lock_info to us.
    ::unlink(lock_files::info(session_).c_str());
    ::unlink(lock_files::lock(session_).c_str());
    ::unlink(lock_files::entry(session_, ticket.number()).c_str());
    guard_.unlock();
    ticket.leave();
}

SessionLock::SessionLock(const Session &session, Options options)
    : state_(std::make_unique<State>(session, std::move(options))) {}

SessionLock::~SessionLock() {
    state_->release();
}

bool SessionLock::acquire(Clock::time_point deadline) {
    return state_->acquire(deadline);
}

void SessionLock::lock() {
    if (state_->acquire(deadline_after(state_->options().time_out))) return;
    throw SessionLockTimedOut(state_->time_out_message());
}

bool SessionLock::try_lock() {
    return state_->acquire(Clock::now());
}

void SessionLock::unlock() {
    state_->release();
}

const std::optional<SessionLock::Stall> &SessionLock::stall() const {
    return state_->stall();
}

std::string SessionLock::time_out_message() const {
    return state_->time_out_message();
}

}  // namespace planloop
