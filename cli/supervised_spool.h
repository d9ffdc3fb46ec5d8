// The supervisor's side of a spool: keeps space reserved ahead of the traced programs, and writes what only a
// supervisor knows: that a process is gone, and that a program could not be traced.
//
// One supervisor at a time is the first one of a spool: it watches every process and exports to planloop.jsonl.
// Another `dev run` into the same session is content with its own program until it can take over.
//
// Threads: externally synchronised. Errors: what cannot be written is counted in the spool as dropped.
#ifndef PLANLOOP_CLI_SUPERVISED_SPOOL_H
#define PLANLOOP_CLI_SUPERVISED_SPOOL_H

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>

#include "lockcore/result.h"
#include "lockcore/session.h"
#include "lockcore/wire/stream_writer.h"

namespace planloop::cli {

struct SharedDescription {
    std::uint32_t description = 0;  // numbers in the spool
    std::uint32_t file = 0;
};

// How much of a session is kept; 0: not asked for.
struct SpoolSize {
    std::uint64_t most_bytes = 0;  // at this size nothing more is recorded
    std::uint64_t ring_bytes = 0;  // at this size the newest takes the place of the oldest
};

class SupervisedSpool {
  public:
    // Opens or makes the spool of this boot and reserves its first space, so that what stands in the way of recording
    // is known before the program starts. A spool that is there already gets the new limit, but cannot become a ring.
    static Result<std::unique_ptr<SupervisedSpool>> open(const Session &session, const SpoolSize &size = {});
    ~SupervisedSpool();
    SupervisedSpool(const SupervisedSpool &) = delete;
    SupervisedSpool &operator=(const SupervisedSpool &) = delete;

    std::string path() const { return writer_.path(); }
    const wire::SpoolHeader &header() const noexcept { return writer_.header(); }
    wire::SpoolHeader &header() noexcept { return writer_.header(); }
    std::uint64_t ticks() const noexcept { return writer_.ticks(); }
    // Grows when a process attaches, or a thread needs room: a cheap sign that there is something new.
    std::uint64_t claimed_bytes() const noexcept;

    // Becomes the first supervisor if there is no live one; true if it is one now.
    bool try_to_lead() noexcept;
    bool leads() const noexcept { return leads_; }

    void reserve_ahead() noexcept;

    // `died_at`: ticks(). `wait_status` -1 and `start_time` 0: not known.
    void write_ended(pid_t pid, std::uint64_t start_time, std::int64_t wait_status, std::uint64_t died_at) noexcept;
    // At `seen_at` (ticks) `pid` had the description as its descriptor `fd`.
    void write_sharer(const SharedDescription &shared, pid_t pid, int fd, std::uint64_t seen_at) noexcept;
    // `pid` runs and does not record, but a child of it does.
    void write_parent(pid_t pid) noexcept { write_sharer({}, pid, -1, ticks()); }
    void write_not_traced(pid_t pid, wire::NotTracedCause cause, const std::string &path) noexcept;

  private:
    SupervisedSpool() = default;
    void write(wire::RecordKind kind, std::uint64_t begin, std::uint64_t end, std::uint64_t a, std::uint64_t b,
               const std::string &text) noexcept;

    mutable wire::SpoolWriter writer_;
    wire::StreamWriter stream_;
    wire::WriterIdentity identity_;
    std::uint64_t claimed_before_ = 0;
    bool leads_ = false;
};

}  // namespace planloop::cli

#endif
