#include "lockcore/recorder.h"

#include <gtest/gtest.h>
#include <pthread.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <set>
#include <system_error>
#include <thread>

#include "analysis/report.h"
#include "lockcore/file_lock.h"
#include "lockcore/trace_id.h"
#include "tests/support/recorded_session.h"

namespace planloop {
namespace {

using namespace std::chrono_literals;
using testing::Child;
using testing::Line;
using testing::RecordedSession;
using testing::wait_until_kernel_says_waiting;
using Lines = std::vector<std::string>;
using analysis::EventKind;

analysis::Report report_of(const RecordedSession &recorded) {
    auto source = analysis::open_session(recorded.session());
    return analysis::analyse(**source, {}, {});
}

TEST(Recorder, TellsWhoAskedForAFileLockAndHowLongItWasWaitedForAndHeld) {
    const RecordedSession recorded;
    const std::string path = recorded.folder().file("lock");
    Child holder([&](Line &line) {
        FileLock lock(path);
        lock.lock();
        line.tell('h');
        wait_until_kernel_says_waiting(::getppid(), path);
        std::this_thread::sleep_for(20ms);  // the wait that is measured
        lock.unlock();
        return 0;
    });
    const pid_t holder_pid = holder.pid();
    ASSERT_EQ(holder.hear(), 'h');
    FileLock lock(path);
    const std::string trace_id = start_operation_trace("update");
    lock.lock();
    std::this_thread::sleep_for(10ms);  // the hold that is measured
    lock.unlock();
    EXPECT_EQ(holder.status(), 0);

    const auto events = recorded.events();
    ASSERT_EQ(events.size(), 6u);
    for (const auto &seen : events) {
        EXPECT_EQ(seen.event.family, wire::Family::posix_thread);
        EXPECT_EQ(seen.file.path, path);
        if (seen.event.pid == holder_pid) continue;
        EXPECT_EQ(seen.process.operation, "update");
        EXPECT_EQ(seen.process.trace_id, trace_id);
        EXPECT_NE(seen.event.caller, 0u);
    }
    const analysis::Report report = report_of(recorded);
    ASSERT_EQ(report.locks.size(), 1u);
    EXPECT_EQ(report.locks[0].acquisitions, 2u);
    EXPECT_EQ(report.locks[0].contended, 1u);
    EXPECT_GE(report.locks[0].wait.max, 20'000'000);
    EXPECT_GE(report.locks[0].hold.max, 20'000'000);
    EXPECT_TRUE(report.held.empty());
    EXPECT_EQ(report.processes, 2u);
}

TEST(Recorder, TellsTriesThatFailAndWaitsThatTimeOut) {
    const RecordedSession recorded;
    const std::string path = recorded.folder().file("lock");
    FileLock lock(path);
    lock.lock();
    Child child([&](Line &) {
        FileLock own(path);
        if (own.try_lock() || own.try_lock_for(3ms) || own.try_lock_shared()) return 1;
        return 0;
    });
    EXPECT_EQ(child.status(), 0);
    lock.unlock();
    Lines of_child;
    for (const auto &seen : recorded.events()) {
        if (seen.event.pid == ::getpid() || seen.event.kind != EventKind::lock_failed) continue;
        of_child.push_back(fmt::format("{} {}", seen.event.error, seen.event.duration_ns >= 3'000'000));
    }
    EXPECT_EQ(of_child, (Lines{fmt::format("{} false", EAGAIN), fmt::format("{} true", ETIMEDOUT),
                               fmt::format("{} false", EAGAIN)}));
}

TEST(Recorder, ARequestIsSeenWhileItWaitsAndOutlivesSigkill) {
    const RecordedSession recorded;
    const std::string path = recorded.folder().file("lock");
    FileLock lock(path);
    lock.lock();
    Child waiter([&](Line &) {
        FileLock own(path);
        own.lock();
        return 0;
    });
    const pid_t pid = waiter.pid();
    wait_until_kernel_says_waiting(pid, path);
    waiter.kill();
    const auto events = recorded.events();
    ASSERT_FALSE(events.empty());
    EXPECT_EQ(events.back().event.pid, pid);
    EXPECT_EQ(events.back().event.kind, EventKind::lock_requested);
    lock.unlock();
}

TEST(Recorder, AThreadThatIsCancelledAbandonsItsRequest) {
    const RecordedSession recorded;
    const std::string path = recorded.folder().file("lock");
    Child holder([&](Line &line) {
        FileLock lock(path, FileLock::Recorded::no);
        lock.lock();
        line.tell('h');
        line.hear();
        return 0;
    });
    ASSERT_EQ(holder.hear(), 'h');
    FileLock lock(path);
    std::thread waiter([&] { lock.lock(); });
    wait_until_kernel_says_waiting(::getpid(), path);
    ::pthread_cancel(waiter.native_handle());
    waiter.join();
    EXPECT_EQ(recorded.lines(), (Lines{"requested exclusive", "failed exclusive " + std::to_string(ECANCELED)}));
    holder.tell('e');
}

// Not inlined, so that its code is one piece.
__attribute__((noinline)) void use_all_ways(FileLock &lock) {
    lock.lock();
    lock.unlock();
    if (lock.try_lock()) lock.unlock();
    lock.lock_shared();
    lock.unlock_shared();
    if (lock.try_lock_shared()) lock.unlock_shared();
    asm volatile("");  // else the last call is a jump, and returns to our own caller
}

TEST(Recorder, TheCallerIsTheCodeThatAsked) {
    const RecordedSession recorded;
    FileLock lock(recorded.folder().file("lock"));
    use_all_ways(lock);
    const auto begin = reinterpret_cast<std::uint64_t>(&use_all_ways);
    const auto events = recorded.events();
    EXPECT_EQ(events.size(), 12u);
    for (const auto &seen : events) {
        EXPECT_GT(seen.event.caller, begin);
        EXPECT_LT(seen.event.caller, begin + 4096);
    }
}

TEST(Recorder, EachThreadHasItsOwnOperationUnlessOneIsHandedOver) {
    const RecordedSession recorded;
    FileLock lock(recorded.folder().file("lock"));
    const auto use = [&] { const std::lock_guard guard(lock); };
    std::thread([&] { use(); }).join();
    start_operation_trace("outer");
    std::thread([&] {
        start_operation_trace("inner");
        use();
    }).join();
    std::thread([&, trace = current_trace()] {
        {
            const TraceScope scope(trace);
            use();
        }
        use();
    }).join();
    Lines operations;
    std::set<std::string> traces;
    std::string own;
    for (const auto &seen : recorded.events()) {
        if (seen.event.kind != EventKind::lock_acquired) continue;
        operations.push_back(seen.process.operation);
        EXPECT_TRUE(valid_trace_id(seen.process.trace_id));
        traces.insert(seen.process.trace_id);
        own = seen.process.name;
    }
    EXPECT_EQ(operations, (Lines{own, "inner", "outer", own}));
    EXPECT_EQ(traces.size(), 3u);
}

TEST(Recorder, ThreadsOfOneProcessThatWaitForEachOtherAreToldApart) {
    const RecordedSession recorded;
    FileLock one(recorded.folder().file("one"));
    FileLock two(recorded.folder().file("two"));
    const auto has_asked = [&](pid_t tid) {
        const auto events = recorded.events();
        return std::any_of(events.begin(), events.end(), [&](const auto &seen) {
            return seen.event.tid == tid && seen.event.kind == EventKind::lock_requested &&
                   seen.file.path == two.path();
        });
    };
    // A ring of two threads, which the kernel cannot see.
    two.lock();
    std::atomic<pid_t> other_tid = 0;
    std::thread other([&] {
        one.lock();
        other_tid = ::gettid();
        two.lock();
        two.unlock();
        one.unlock();
    });
    while (other_tid == 0 || !has_asked(other_tid)) ::usleep(1000);
    EXPECT_FALSE(one.try_lock_for(50ms));
    two.unlock();
    other.join();
    const analysis::Report report = report_of(recorded);
    ASSERT_EQ(report.locks.size(), 2u);
    for (const auto &lock : report.locks) EXPECT_EQ(lock.id.substr(0, 6), "posix:");
    ASSERT_FALSE(report.findings.empty());
    EXPECT_EQ(report.findings[0].kind, "deadlock");
    ASSERT_EQ(report.findings[0].participants.size(), 2u);
    std::set<std::int32_t> tids;
    for (const auto &participant : report.findings[0].participants) tids.insert(participant.tid);
    EXPECT_EQ(tids, (std::set<std::int32_t>{::getpid(), other_tid}));
}

TEST(Recorder, RecordsNothingWhenItIsNotAskedTo) {
    const testing::TemporaryFolder folder;
    Child child([&](Line &) {
        ::setenv("PLANLOOP_HOME", folder.file("home").c_str(), 1);
        ::setenv("PLANLOOP_SESSION", "s", 1);
        ::setenv("PLANLOOP_NO_RECORDING", "1", 1);
        FileLock lock(folder.file("lock"));
        lock.lock();
        return ::access(folder.file("home").c_str(), F_OK) == 0 ? 1 : 0;
    });
    EXPECT_EQ(child.status(), 0);
}

TEST(Recorder, TheLockWorksWhereTheSessionCannotBeWritten) {
    const testing::TemporaryFolder folder;
    Child child([&](Line &) {
        std::ofstream(folder.file("home")) << "a file, not a folder";
        ::setenv("PLANLOOP_HOME", folder.file("home").c_str(), 1);
        const auto recording = record_into(Session{"s", folder.file("home/sessions/s")});
        if (recording || recording.error().message.find(folder.path()) == std::string::npos) return 1;
        FileLock lock(folder.file("lock"));
        lock.lock();
        lock.unlock();
        return 0;
    });
    EXPECT_EQ(child.status(), 0);
}

// Keeping a table of what each thread holds costs as much as recording does: only those pay who use error contexts or
// have an operation recorded. FileLock throws, and whoever throws is given throw_hook.cpp by the linker.
TEST(Recorder, NobodyWatchesTheLocksOfAProgramThatUsesNoErrorContext) {
    EXPECT_THROW(FileLock("/"), std::system_error);
    EXPECT_FALSE(recording::locks_are_watched());
}

}  // namespace
}  // namespace planloop
