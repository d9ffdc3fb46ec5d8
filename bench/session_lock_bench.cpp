// How fast a session's lock goes from hand to hand, with processes: SessionLock, SessionLock after its holder was
// killed, and a model of the Python planloop's protocol (a look every 100 ms) in the same run. Times are from just
// before the unlock (or the kill) to the moment at which the next holder is inside. Budgets: 1 ms median for a
// hand-over, 10 ms median after a kill.

#include <benchmark/benchmark.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "lockcore/session_lock.h"

namespace planloop {
namespace {

using Clock = std::chrono::steady_clock;

std::int64_t now_ns() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(Clock::now().time_since_epoch()).count();
}

const Session &session() {
    static const Session made = [] {
        static char name[] = "/tmp/planloop-bench-XXXXXX";
        ::setenv("PLANLOOP_HOME", ::mkdtemp(name), 1);  // NOLINT(concurrency-mt-unsafe)
        const pid_t owner = ::getpid();
        static pid_t cleaner = owner;
        static_cast<void>(std::atexit([] {
            if (::getpid() != cleaner) return;
            static_cast<void>(::system((std::string("rm -rf ") + name).c_str()) == 0);  // NOLINT
        }));
        return *create_session("bench");
    }();
    return made;
}

// The Python planloop's lock, as far as its times go: a queue entry, a look every 100 ms, `.lock` with O_EXCL.
class PollingLock {
  public:
    explicit PollingLock(std::string folder) : path_(std::move(folder) + "/python.lock") {}
    void lock() const {
        for (;;) {
            const int fd = ::open(path_.c_str(), O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
            if (fd >= 0) {
                ::close(fd);
                return;
            }
            ::usleep(100'000);
        }
    }
    void unlock() const { ::unlink(path_.c_str()); }

  private:
    std::string path_;
};

// A process that takes the lock when told, says when it is in, and gives it back when told.
template <class MakeLock>
class Contender {
  public:
    explicit Contender(MakeLock make_lock) {
        void *memory = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        inside_ns_ = static_cast<std::atomic<std::int64_t> *>(memory);
        int ends[2];
        static_cast<void>(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            run(ends[1], make_lock);
            ::_exit(0);
        }
        ::close(ends[1]);
        line_ = ends[0];
    }
    Contender(const Contender &) = delete;
    Contender &operator=(const Contender &) = delete;
    ~Contender() {
        kill();
        ::close(line_);
        ::munmap(inside_ns_, 4096);
    }

    void ask() { tell(line_, 'a'); }
    void await(char what) const {
        char heard = 0;
        while (heard != what && ::read(line_, &heard, 1) == 1) {
        }
    }
    void give_back() { tell(line_, 'g'); }
    void kill() {
        if (pid_ <= 0) return;
        ::kill(pid_, SIGKILL);
        ::waitpid(pid_, nullptr, 0);
        pid_ = -1;
    }
    std::int64_t inside_ns() const { return inside_ns_->load(); }

  private:
    static void tell(int line, char what) { static_cast<void>(::send(line, &what, 1, MSG_NOSIGNAL) == 1); }
    void run(int line, MakeLock make_lock) {
        auto lock = make_lock([line] { tell(line, 'q'); });
        char told = 0;
        while (::read(line, &told, 1) == 1) {
            lock->lock();
            inside_ns_->store(now_ns());
            tell(line, 'i');
            static_cast<void>(::read(line, &told, 1) == 1);
            lock->unlock();
            tell(line, 'o');
        }
    }

    std::atomic<std::int64_t> *inside_ns_ = nullptr;
    pid_t pid_ = -1;
    int line_ = -1;
};

void tell_spread(benchmark::State &state, std::vector<double> &us) {
    if (us.empty()) return;
    std::sort(us.begin(), us.end());
    state.counters["median_us"] = us[us.size() / 2];
    state.counters["p99_us"] = us[us.size() * 99 / 100];
    state.counters["worst_us"] = us.back();
}

const auto make_session_lock = [](auto queued) {
    SessionLockOptions options;
    options.operation = "bench";
    options.on_position = [queued](std::size_t) { queued(); };
    return std::make_unique<SessionLock>(session(), options);
};
const auto make_polling_lock = [](auto) { return std::make_unique<PollingLock>(session().directory); };

// The waiter's turn: how long after `begun` it came inside. Then it goes out.
double turn_us(benchmark::State &state, auto &waiter, std::int64_t begun) {
    waiter.await('i');
    const double took_ns = static_cast<double>(waiter.inside_ns() - begun);
    state.SetIterationTime(took_ns / 1e9);
    waiter.give_back();
    waiter.await('o');
    return took_ns / 1e3;
}

template <class MakeLock>
void hand_over(benchmark::State &state, MakeLock make_lock, bool tells_that_it_waits) {
    session();
    Contender waiter(make_lock);
    auto lock = make_lock([] {});
    std::vector<double> us;
    for (auto _ : state) {
        lock->lock();
        waiter.ask();
        if (tells_that_it_waits) {
            waiter.await('q');
        } else {
            ::usleep(static_cast<unsigned>(std::rand()) % 100'000);  // NOLINT: any moment between two of its looks
        }
        const std::int64_t begun = now_ns();
        lock->unlock();
        us.push_back(turn_us(state, waiter, begun));
    }
    tell_spread(state, us);
}

void session_lock_hand_over(benchmark::State &state) {
    hand_over(state, make_session_lock, true);
}
void python_model_hand_over(benchmark::State &state) {
    hand_over(state, make_polling_lock, false);
}

void session_lock_after_a_kill(benchmark::State &state) {
    session();
    std::vector<double> us;
    for (auto _ : state) {
        Contender holder(make_session_lock);
        holder.ask();
        holder.await('i');
        Contender waiter(make_session_lock);
        waiter.ask();
        waiter.await('q');
        const std::int64_t begun = now_ns();
        holder.kill();
        us.push_back(turn_us(state, waiter, begun));
    }
    tell_spread(state, us);
}

void session_lock_uncontended(benchmark::State &state) {
    SessionLock lock(session(), {.operation = "bench"});
    for (auto _ : state) {
        lock.lock();
        lock.unlock();
    }
}

BENCHMARK(session_lock_uncontended)->Unit(benchmark::kMicrosecond);
BENCHMARK(session_lock_hand_over)->UseManualTime()->Iterations(2000)->Unit(benchmark::kMicrosecond);
BENCHMARK(session_lock_after_a_kill)->UseManualTime()->Iterations(200)->Unit(benchmark::kMicrosecond);
BENCHMARK(python_model_hand_over)->UseManualTime()->Iterations(40)->Unit(benchmark::kMicrosecond);

}  // namespace
}  // namespace planloop
