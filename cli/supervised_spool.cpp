#include "cli/supervised_spool.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "lockcore/clock.h"
#include "lockcore/process_status.h"

namespace planloop::cli {
namespace {

constexpr std::uint64_t kLeastAhead = std::uint64_t{256} << 10;
constexpr std::uint64_t kMostAhead = std::uint64_t{32} << 20;
constexpr std::uint64_t kPollsAhead = 16;  // space for so many intervals of the present speed

std::string reason_text(int error) {
    if (error == EPROTO) return "the spool there is not one of this version";
    if (error == EFBIG) return "a limit on the size of files (ulimit -f)";
    return std::strerror(error);
}

// A write past RLIMIT_FSIZE sends SIGXFSZ, which would end this process; ignored, the write fails with EFBIG. Given
// back at the end, since the program inherits what is ignored.
class SizeSignalIgnored {
  public:
    SizeSignalIgnored() {
        struct sigaction ignored {};
        ignored.sa_handler = SIG_IGN;
        ::sigaction(SIGXFSZ, &ignored, &before_);
    }
    ~SizeSignalIgnored() { ::sigaction(SIGXFSZ, &before_, nullptr); }
    SizeSignalIgnored(const SizeSignalIgnored &) = delete;
    SizeSignalIgnored &operator=(const SizeSignalIgnored &) = delete;

  private:
    struct sigaction before_ {};
};

}  // namespace

Result<std::unique_ptr<SupervisedSpool>> SupervisedSpool::open(const Session &session, const SpoolSize &size) {
    std::unique_ptr<SupervisedSpool> spool(new SupervisedSpool());
    const SizeSignalIgnored no_signal;
    const std::uint64_t most = size.most_bytes != 0 ? size.most_bytes : wire::kDefaultLimitBytes;
    int result = spool->writer_.open(session.spool_dir().c_str(), most, size.ring_bytes);
    if (result == 0) {
        const bool ring = spool->writer_.is_ring();
        if ((size.ring_bytes != 0 && !ring) || (size.most_bytes != 0 && ring)) {
            return Error{fmt::format("session '{}' is recorded with{} --ring already; choose another session",
                                     session.id, ring ? "" : "out")};
        }
        if (size.most_bytes != 0) spool->writer_.header().limit_bytes = size.most_bytes;
        const std::uint64_t used = spool->claimed_bytes();
        spool->claimed_before_ = used;
        // A spool that reached its size cap records nothing more; that is counted, not refused.
        const std::uint64_t limit = spool->writer_.header().limit_bytes;
        result = spool->writer_.reserve(std::min(used + wire::kPageBytes, limit));
    }
    if (result != 0) return Error{fmt::format("cannot record in {}: {}", session.spool_dir(), reason_text(-result))};
    spool->identity_ = {0, ::getpid(), ::getpid()};
    // At once: who follows the session sees by it that somebody will come.
    spool->try_to_lead();
    return spool;
}

SupervisedSpool::~SupervisedSpool() {
    if (!leads_) return;
    wire::SpoolHeader &header = writer_.header();
    header.final_ticks.store(0, std::memory_order_relaxed);  // also of a program that was killed while it was at it
    writer_.leave_clocks();
    auto own = static_cast<std::uint32_t>(identity_.pid);
    header.supervisor.compare_exchange_strong(own, 0);
}

std::uint64_t SupervisedSpool::claimed_bytes() const noexcept {
    return writer_.header().next_offset.load(std::memory_order_acquire);
}

bool SupervisedSpool::try_to_lead() noexcept {
    if (leads_) return true;
    std::uint32_t present = writer_.header().supervisor.load(std::memory_order_relaxed);
    if (present != 0 && process_runs(static_cast<pid_t>(present), 0)) return false;
    leads_ = writer_.header().supervisor.compare_exchange_strong(present, static_cast<std::uint32_t>(identity_.pid));
    return leads_;
}

void SupervisedSpool::reserve_ahead() noexcept {
    const std::uint64_t used = claimed_bytes();
    const std::uint64_t grown = used - std::min(used, claimed_before_);
    claimed_before_ = used;
    const std::uint64_t wanted = used + std::clamp(grown * kPollsAhead, kLeastAhead, kMostAhead);
    const std::uint64_t limit = writer_.header().limit_bytes;
    if (wanted <= limit && writer_.worth_trying()) static_cast<void>(writer_.reserve(wanted));
}

void SupervisedSpool::write(wire::RecordKind kind, std::uint64_t begin, std::uint64_t end, std::uint64_t a,
                            std::uint64_t b, const std::string &text) noexcept {
    const wire::TextPiece piece{text.c_str(), text.size() + 1};
    wire::Record *record =
        text.empty() ? stream_.claim(writer_, identity_) : stream_.claim_with_text(writer_, identity_, &piece, 1);
    if (record == nullptr) return;
    record->kind = kind;
    record->begin = begin;
    if (text.empty()) record->end = end;  // else it tells the length of the text
    record->fd = -1;
    record->a = a;
    record->b = b;
    stream_.publish(record, wire::State::complete);
}

void SupervisedSpool::write_ended(pid_t pid, std::uint64_t start_time, std::int64_t wait_status,
                                  std::uint64_t died_at) noexcept {
    write(wire::RecordKind::ended, died_at, start_time, static_cast<std::uint64_t>(pid),
          static_cast<std::uint64_t>(wait_status), {});
}

void SupervisedSpool::write_not_traced(pid_t pid, wire::NotTracedCause cause, const std::string &path) noexcept {
    write(wire::RecordKind::not_traced, ticks(), 0, static_cast<std::uint64_t>(pid), static_cast<std::uint64_t>(cause),
          path);
}

void SupervisedSpool::write_sharer(const SharedDescription &shared, pid_t pid, int fd, std::uint64_t seen_at) noexcept {
    wire::ProcessBody body{};
    body.pid = pid;
    if (const std::optional<ProcessStatus> status = process_status(pid)) {
        body.start_time = status->start_time;
        body.parent_pid = status->parent;
    }
    const std::string command = command_line_of(pid);
    const wire::TextPiece pieces[] = {{&body, sizeof(body)}, {command.c_str(), command.size() + 1}};
    wire::Record *record = stream_.claim_with_text(writer_, identity_, pieces, 2);
    if (record == nullptr) return;
    record->kind = wire::RecordKind::sharer;
    record->begin = seen_at;
    record->fd = -1;
    record->file = shared.file;
    record->description = shared.description;
    record->a = static_cast<std::uint64_t>(pid);
    record->b = static_cast<std::uint64_t>(fd);
    stream_.publish(record, wire::State::complete);
}

}  // namespace planloop::cli
