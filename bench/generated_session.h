// A session whose spool holds such events as synthetic_events.h makes, written by the recorder's own writer with stamps
// of a made-up time. For benchmarks only.
#ifndef PLANLOOP_BENCH_GENERATED_SESSION_H
#define PLANLOOP_BENCH_GENERATED_SESSION_H

#include <stdlib.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "bench/synthetic_events.h"
#include "lockcore/session.h"
#include "lockcore/wire/stream_writer.h"

namespace planloop::analysis {

template <class Schedule>
class GeneratedSession {
  public:
    GeneratedSession(std::uint32_t threads, std::uint64_t events, std::uint64_t limit_bytes = wire::kDefaultLimitBytes)
        : streams_(threads), pending_(threads) {
        if (mkdtemp(home_.data()) == nullptr) return;
        session_ = {"bench", home_ + "/sessions/bench"};
        std::filesystem::create_directories(session_.spool_dir());
        spool_ = std::make_unique<wire::SpoolWriter>();
        if (spool_->open(session_.spool_dir().c_str(), limit_bytes) != 0) return;
        now_ = spool_->ticks();
        for (std::uint32_t thread = 0; thread < threads; ++thread) introduce(thread);
        Schedule schedule(threads);
        for (std::uint64_t i = 0; i < events; ++i) write(schedule.next());
        written_ = true;
        for (const auto &count : spool_->header().dropped) written_ = written_ && count.load() == 0;
    }
    ~GeneratedSession() {
        std::error_code ignored;
        std::filesystem::remove_all(home_, ignored);
    }
    GeneratedSession(const GeneratedSession &) = delete;
    GeneratedSession &operator=(const GeneratedSession &) = delete;

    bool written() const { return written_; }
    const Session &session() const { return session_; }
    void close() { spool_.reset(); }

  private:
    static wire::WriterIdentity who(std::uint32_t thread) {
        const auto pid = static_cast<std::int32_t>(1000 + thread);
        return {thread + 1, pid, pid};
    }
    template <class Body, std::size_t length>
    void introduce(std::uint32_t thread, wire::RecordKind kind, const Body &body, const char (&texts)[length]) {
        const wire::TextPiece pieces[] = {{&body, sizeof(body)}, {texts, length}};
        wire::Record *record = streams_[thread].claim_with_text(*spool_, who(thread), pieces, 2);
        if (record == nullptr) return;
        record->kind = kind;
        record->begin = ++now_;
        streams_[thread].publish(record, wire::State::complete);
    }
    void introduce(std::uint32_t thread) {
        wire::ProcessBody process{};
        process.pid = who(thread).pid;
        introduce(thread, wire::RecordKind::process, process,
                  "worker --its arguments\0/usr/bin/worker\0/tmp\0tr_20261122080000_abcdef\0worker");
        for (std::uint32_t lock = thread * kLocksOfAThread; lock < (thread + 1) * kLocksOfAThread; ++lock) {
            char path[] = "/tmp/lock-0000";  // one path for several files would be a finding
            for (std::size_t digit = sizeof(path) - 2, rest = lock; rest > 0; rest /= 10, --digit)
                path[digit] = static_cast<char>('0' + rest % 10);
            introduce(thread, wire::RecordKind::file, wire::FileBody{lock + 1, 0100644, 1, 1000 + lock, 0}, path);
        }
    }
    wire::Record *claim(const Step &step, wire::RecordKind kind) {
        wire::Record *record = streams_[step.thread].claim(*spool_, who(step.thread));
        if (record == nullptr) return nullptr;
        record->kind = kind;
        record->flags = wire::kBlocking;
        record->begin = now_;
        record->fd = static_cast<std::int32_t>(3 + step.lock % kLocksOfAThread);
        record->file = step.lock + 1;
        record->description = step.lock << 8 | (step.thread + 1);
        return record;
    }
    void write(const Step &step) {
        now_ += 200;
        wire::Record *&pending = pending_[step.thread];
        if (step.what == Step::What::acquire && pending != nullptr) {
            pending->end = now_;
            wire::StreamWriter::conclude(pending, wire::State::complete);
            return;
        }
        const bool request = step.what == Step::What::request;
        wire::Record *record = claim(step, request ? wire::RecordKind::acquire : wire::RecordKind::release);
        if (record == nullptr) return;
        if (request) {
            record->mode = wire::Mode::exclusive;
            pending = record;
        }
        streams_[step.thread].publish(record, request ? wire::State::pending : wire::State::complete);
    }

    std::string home_ = (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string();
    Session session_;
    std::unique_ptr<wire::SpoolWriter> spool_;
    std::vector<wire::StreamWriter> streams_;
    std::vector<wire::Record *> pending_;
    std::uint64_t now_ = 0;
    bool written_ = false;
};

}  // namespace planloop::analysis

#endif
