// Lock events that cost next to nothing to make, as many as are asked for: what the analysis and the exports are
// measured with.
#ifndef PLANLOOP_BENCH_SYNTHETIC_EVENTS_H
#define PLANLOOP_BENCH_SYNTHETIC_EVENTS_H

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/event.h"

namespace planloop::analysis {

// Who does what in which order. Each thread is a process of its own.
struct Step {
    enum class What : std::uint8_t { request, acquire, release } what;
    std::uint32_t thread;  // from 0
    std::uint32_t lock;    // from 0
};

inline constexpr std::uint32_t kLocksOfAThread = 4;

// Threads that all queue for one lock and get it in turn: the most that the bookkeeping of waits has to do.
class Contended {
  public:
    explicit Contended(std::uint32_t threads) : threads_(threads) {}
    Step next() {
        if (queued_ < threads_) return {Step::What::request, queued_++, 0};
        switch (phase_++ % 3) {
            case 0:
                return {Step::What::acquire, holder_, 0};
            case 1:
                return {Step::What::release, holder_, 0};
            default:
                const std::uint32_t again = holder_;
                holder_ = (holder_ + 1) % threads_;
                return {Step::What::request, again, 0};
        }
    }

  private:
    std::uint32_t threads_, queued_ = 0, holder_ = 0;
    std::uint64_t phase_ = 0;
};

// Threads that take turns at locks which are free.
class Uncontended {
  public:
    explicit Uncontended(std::uint32_t threads) : threads_(threads) {}
    Step next() {
        const auto thread = static_cast<std::uint32_t>(step_ / 3 % threads_);
        const auto turn = static_cast<std::uint32_t>(step_ / 3 / threads_ % kLocksOfAThread);
        return {static_cast<Step::What>(step_++ % 3), thread, thread * kLocksOfAThread + turn};
    }

  private:
    std::uint32_t threads_;
    std::uint64_t step_ = 0;
};

// Events made as they are asked for.
template <class Schedule>
class SyntheticSource : public EventSource {
  public:
    SyntheticSource(std::uint32_t threads, std::uint64_t events) : schedule_(threads), left_(events) {
        open_.resize(threads);
        process_.command_line = "worker";
        process_.name = "worker";
        for (std::uint32_t lock = 0; lock <= threads * kLocksOfAThread; ++lock) {
            files_.emplace_back();
            files_.back().inode = lock;
            files_.back().path = "/tmp/lock-" + std::to_string(lock);
        }
    }

    bool next(Event &event) override {
        if (left_ == 0) return false;
        --left_;
        const Step step = schedule_.next();
        Open &open = open_[step.thread];
        event = {};
        event.t_ns = now_ns_ += 100;
        event.family = wire::Family::flock;
        event.mode = wire::Mode::exclusive;
        event.flags = wire::kBlocking;
        event.process = event.thread = step.thread + 1;
        event.pid = event.tid = static_cast<std::int32_t>(1000 + step.thread);
        event.fd = static_cast<std::int32_t>(3 + step.lock % kLocksOfAThread);
        event.file = step.lock + 1;
        event.description = step.lock << 8 | (step.thread + 1);
        switch (step.what) {
            case Step::What::request:
                event.kind = EventKind::lock_requested;
                open = {++entries_, event.t_ns};
                break;
            case Step::What::acquire:
                event.kind = EventKind::lock_acquired;
                event.duration_ns = event.t_ns - open.since_ns;
                break;
            case Step::What::release:
                event.kind = EventKind::lock_released;
                event.mode = wire::Mode::none;
                break;
        }
        event.entry = open.entry;
        return true;
    }
    const ProcessInfo &process(std::uint32_t) const override { return process_; }
    const FileInfo &file(std::uint32_t id) const override { return files_[id < files_.size() ? id : 0]; }
    SourceNotes notes() const override { return {}; }

  private:
    struct Open {
        std::uint64_t entry = 0;
        std::int64_t since_ns = 0;
    };
    Schedule schedule_;
    std::uint64_t left_, entries_ = 0;
    std::int64_t now_ns_ = 1'800'000'000'000'000'000;
    std::vector<Open> open_;
    ProcessInfo process_;
    std::vector<FileInfo> files_;
};

}  // namespace planloop::analysis

#endif
