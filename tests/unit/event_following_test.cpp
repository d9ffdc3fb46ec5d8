// A session that is followed while it is recorded: what is told when, and what is not asked for again.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "analysis/source/event_source.h"
#include "lockcore/clock.h"
#include "lockcore/jsonl.h"
#include "lockcore/wire/stream_writer.h"
#include "tests/support/temp_folder.h"

namespace planloop::analysis {
namespace {

using wire::RecordKind;
using wire::State;

class EventFollowing : public ::testing::Test {
  public:
    ~EventFollowing() override { unsetenv("PLANLOOP_HOME"); }

  protected:
    EventFollowing() {
        setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);
        session_ = *create_session("s");
    }

    std::unique_ptr<wire::SpoolWriter> make_spool() const {
        auto spool = std::make_unique<wire::SpoolWriter>();
        EXPECT_EQ(spool->open(session_.spool_dir().c_str()), 0);
        return spool;
    }
    void write_log(const std::string &text) const { std::ofstream(session_.log_file(), std::ios::app) << text; }
    std::unique_ptr<EventSource> open(const SourceOptions &options = {}) const {
        auto source = open_session(session_, options);
        return source ? std::move(*source) : nullptr;
    }

    test::TempFolder folder_;
    Session session_;
};

TEST_F(EventFollowing, FollowsASessionThatIsBeingRecorded) {
    const auto source = open({.follow = true, .hold_back_ns = 0});
    Event event;
    EXPECT_FALSE(source->next(event));  // no spool yet

    wire::StreamWriter writer;
    const auto spool = make_spool();
    const auto begin_call = [&](State state) {
        wire::Record *record = writer.claim(*spool, {1, getpid(), getpid()});
        record->kind = RecordKind::acquire;
        record->mode = wire::Mode::exclusive;
        record->begin = spool->ticks();
        writer.publish(record, state);
        return record;
    };
    wire::Record *waiting = begin_call(State::pending);
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.kind, EventKind::lock_requested);
    const std::uint64_t entry = event.entry;
    EXPECT_FALSE(source->next(event));
    EXPECT_FALSE(source->next(event));  // and waits on

    waiting->end = spool->ticks();
    wire::StreamWriter::conclude(waiting, State::complete);
    begin_call(State::pending);
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.kind, EventKind::lock_acquired);
    EXPECT_EQ(event.entry, entry);
    EXPECT_GT(event.duration_ns, 0);
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.kind, EventKind::lock_requested);
    EXPECT_FALSE(source->next(event));

    std::string logged;
    LockLine fields;
    fields.utc_ns = utc_now_ns();
    fields.event = "lock_requested";
    fields.source = "lockcore";
    append_lock_line(logged, fields);
    write_log(logged);
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.family, wire::Family::named_mutex);
    EXPECT_FALSE(source->next(event));
}

TEST_F(EventFollowing, HoldsBackWhatIsTooYoungToBeInOrder) {
    wire::StreamWriter writer;
    const auto spool = make_spool();
    wire::Record *record = writer.claim(*spool, {1, getpid(), getpid()});
    record->kind = RecordKind::release;
    record->begin = spool->ticks();
    writer.publish(record, State::complete);
    Event event;
    EXPECT_FALSE(open({.follow = true, .hold_back_ns = 3'600'000'000'000})->next(event));
    EXPECT_TRUE(open({.follow = true, .hold_back_ns = 0})->next(event));
    EXPECT_TRUE(open()->next(event));
}

TEST_F(EventFollowing, WhatIsTakenBackAfterItWasReadIsNotTold) {
    wire::StreamWriter writer;
    const auto spool = make_spool();
    const auto write = [&](RecordKind kind) {
        wire::Record *record = writer.claim(*spool, {1, getpid(), getpid()});
        record->kind = kind;
        record->begin = spool->ticks();
        writer.publish(record, State::complete);
        return record;
    };
    write(RecordKind::duplicate);
    wire::Record *exec = write(RecordKind::exec);
    wire::Record *release = write(RecordKind::release);
    const auto source = open({.follow = true, .hold_back_ns = 0});
    Event event;
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.kind, EventKind::descriptor_duplicated);
    // By now the record behind it is read too.
    wire::StreamWriter::conclude(exec, State::annulled);
    release->error = EBADF;
    ASSERT_TRUE(source->next(event));
    EXPECT_EQ(event.kind, EventKind::lock_released);
    EXPECT_EQ(event.error, EBADF);
    EXPECT_FALSE(source->next(event));
}

// A record may be read in the microsecond in which its call is under way, and be told when that is long over.
TEST_F(EventFollowing, ACallThatCameBackAfterItWasReadIsToldInOrder) {
    wire::StreamWriter writer;
    const auto spool = make_spool();
    const auto write = [&](RecordKind kind, State state) {
        wire::Record *record = writer.claim(*spool, {1, getpid(), getpid()});
        record->kind = kind;
        record->mode = wire::Mode::exclusive;
        record->begin = spool->ticks();
        writer.publish(record, state);
        return record;
    };
    const auto source = open({.follow = true, .hold_back_ns = 20'000'000});
    std::vector<EventKind> told;
    Event event;
    const auto look = [&] {  // the call that gives false is at the end of what was found before
        while (source->next(event)) told.push_back(event.kind);
        while (source->next(event)) told.push_back(event.kind);
    };
    for (const RecordKind call : {RecordKind::acquire, RecordKind::wait_child}) {
        told.clear();
        write(RecordKind::duplicate, State::complete);
        while (told.empty()) look();
        wire::Record *record = write(call, State::pending);
        look();  // reads it, and it is too young to be told
        record->end = spool->ticks();
        wire::StreamWriter::conclude(record, State::complete);
        write(RecordKind::release, State::complete);
        while (told.size() < 4) look();
        const bool lock = call == RecordKind::acquire;
        EXPECT_EQ(told,
                  (std::vector<EventKind>{
                      EventKind::descriptor_duplicated, lock ? EventKind::lock_requested : EventKind::child_wait_begun,
                      lock ? EventKind::lock_acquired : EventKind::child_wait_ended, EventKind::lock_released}));
    }
    EXPECT_EQ(source->notes().late, 0U);
}

// Each with a stream of its own in one spool, one record at a time.
class ManyProcesses : public EventFollowing {
  protected:
    void SetUp() override { EXPECT_EQ(look(), Found{}); }
    struct Process {
        std::int32_t pid;
        wire::StreamWriter writer;
    };
    wire::Record *write(Process &who, RecordKind kind, State state = State::complete, std::uint64_t a = 0,
                        std::int64_t b = 0) {
        wire::Record *record = who.writer.claim(*spool_, {1, who.pid, who.pid});
        record->kind = kind;
        record->begin = spool_->ticks();
        record->a = a;
        record->b = static_cast<std::uint64_t>(b);
        who.writer.publish(record, state);
        return record;
    }
    // By pid; negative: the pid of whose end is told.
    std::vector<std::int32_t> look() {
        std::vector<std::int32_t> found;
        Event event;
        while (source_->next(event)) found.push_back(event.kind == EventKind::process_ended ? -event.pid : event.pid);
        return found;
    }
    using Found = std::vector<std::int32_t>;

    std::unique_ptr<wire::SpoolWriter> spool_ = make_spool();
    bool over_ = false;
    std::unique_ptr<EventSource> source_ = open({.follow = true, .hold_back_ns = 0, .over = [this] { return over_; }});
    Process supervisor_{1, {}};
};

TEST_F(ManyProcesses, TheLastWordsOfOneThatEndedAreTold) {
    Process one{100, {}}, other{200, {}};
    write(one, RecordKind::duplicate);
    write(other, RecordKind::duplicate);
    EXPECT_EQ(look(), (Found{100, 200}));
    write(one, RecordKind::duplicate);
    write(supervisor_, RecordKind::ended, State::complete, 100, 0);
    EXPECT_EQ(look(), (Found{100, -100}));
    EXPECT_EQ(look(), Found{});
    write(other, RecordKind::duplicate);
    Process successor{100, {}};  // the number is given again
    write(successor, RecordKind::duplicate);
    EXPECT_EQ(look(), (Found{200, 100}));
    write(successor, RecordKind::duplicate);
    EXPECT_EQ(look(), Found{100});
}

// A supervisor looks for pids in its own namespace, and does not find those of another one.
TEST_F(ManyProcesses, OneThatWasOnlyNotFoundMaySpeakOn) {
    Process elsewhere{100, {}};
    write(elsewhere, RecordKind::duplicate);
    write(supervisor_, RecordKind::ended, State::complete, 100, wire::kGoneUnwatched);
    EXPECT_EQ(look(), (Found{100, -100}));
    EXPECT_EQ(look(), Found{});
    write(elsewhere, RecordKind::duplicate);
    EXPECT_EQ(look(), Found{100});
}

TEST_F(ManyProcesses, WhatWasBegunAndNotFinishedIsWaitedForUntilNobodyWrites) {
    Process one{100, {}};
    write(one, RecordKind::duplicate);
    EXPECT_EQ(look(), Found{100});
    one.writer.claim(*spool_, {1, one.pid, one.pid});  // never published
    write(one, RecordKind::duplicate);
    over_ = true;
    EXPECT_EQ(look(), Found{100});
    EXPECT_EQ(source_->notes().torn, 1U);
}

}  // namespace
}  // namespace planloop::analysis
