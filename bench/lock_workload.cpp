// One loop of system calls, timed by itself: what side_by_side runs bare, with the shim and under strace.
//
//     lock_workload NAME ITERATIONS        prints two times of an iteration in ns, medians over batches: see Stopwatch
//
// Works on files in the current folder. A process measures one thing and ends, so that no measurement inherits
// descriptors, mappings or caches from another.
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>

namespace {

double clock_ns(clockid_t clock) {
    timespec now{};
    clock_gettime(clock, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

// How often this thread has slept.
long sleeps() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

struct Time {
    double own_ns = 0, whole_ns = 0;
    Time &operator+=(const Time &other) {
        own_ns += other.own_ns;
        whole_ns += other.whole_ns;
        return *this;
    }
};

// Two times of this thread. Its own: what it computed, in the kernel too, so that other programs on the machine do not
// count; but the whole time if it slept, since whoever waits for a disk computes nothing. And the whole.
class Stopwatch {
  public:
    Time time() const {
        const double computed = clock_ns(CLOCK_THREAD_CPUTIME_ID) - computed_;
        const double whole = clock_ns(CLOCK_MONOTONIC) - begun_;
        return {sleeps() == sleeps_ ? computed : whole, whole};
    }

  private:
    long sleeps_ = sleeps();
    double begun_ = clock_ns(CLOCK_MONOTONIC);
    double computed_ = clock_ns(CLOCK_THREAD_CPUTIME_ID);
};

[[noreturn]] void fail(const char *what) {
    std::perror(what);
    std::exit(1);
}

void must(long result, const char *what) {
    if (result < 0) fail(what);
}

// The least that a program does with a file between two calls, without any call of its own.
void work_1us() {
    const double end = clock_ns(CLOCK_MONOTONIC) + 1000;
    while (clock_ns(CLOCK_MONOTONIC) < end) {
    }
}

enum class Family { flock, posix, ofd };

void lock_file(Family family, int fd, bool take) {
    if (family == Family::flock) {
        must(flock(fd, take ? LOCK_EX : LOCK_UN), "flock");
        return;
    }
    struct flock range {};
    range.l_type = take ? F_WRLCK : F_UNLCK;
    range.l_whence = SEEK_SET;
    must(fcntl(fd, family == Family::posix ? F_SETLKW : F_OFD_SETLKW, &range), "fcntl");
}

int open_lock_file() {
    const int fd = open("lock", O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(fd, "open");
    return fd;
}

template <Family family>
Time pair(long iterations) {
    const int fd = open_lock_file();
    const Stopwatch watch;
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        lock_file(family, fd, false);
    }
    const Time took = watch.time();
    close(fd);
    return took;
}

// Held for a microsecond.
template <Family family>
Time held(long iterations) {
    const int fd = open_lock_file();
    const Stopwatch watch;
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        work_1us();
        lock_file(family, fd, false);
    }
    const Time took = watch.time();
    close(fd);
    return took;
}

// A microsecond between a release and the next acquisition: the shim can then no longer be sure that the descriptor
// still means the same file, and has to ask.
template <Family family>
Time apart(long iterations) {
    const int fd = open_lock_file();
    const Stopwatch watch;
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        lock_file(family, fd, false);
        work_1us();
    }
    const Time took = watch.time();
    close(fd);
    return took;
}

template <Family family>
Time cycle(long iterations) {
    close(open_lock_file());
    const Stopwatch watch;
    for (long i = 0; i < iterations; ++i) {
        const int fd = open("lock", O_RDWR | O_CLOEXEC);
        lock_file(family, fd, true);
        lock_file(family, fd, false);
        close(fd);
    }
    return watch.time();
}

// Descriptor calls by the hundred, so that little but the one in question is timed.
constexpr int kRow = 800;
constexpr int kFirst = 100;

void close_row() {
    must(syscall(SYS_close_range, kFirst, kFirst + kRow - 1, 0), "close_range");
}

Time close_alone(long iterations) {
    const int original = open_lock_file();
    Time took;
    for (long done = 0; done < iterations; done += kRow) {
        for (int i = 0; i < kRow; ++i) must(syscall(SYS_dup3, original, kFirst + i, 0), "dup3");
        const Stopwatch watch;
        for (int i = 0; i < kRow; ++i) close(kFirst + i);
        took += watch.time();
    }
    close(original);
    return took;
}

Time dup_alone(long iterations) {
    const int original = open_lock_file();
    std::vector<int> copies(kRow);
    Time took;
    for (long done = 0; done < iterations; done += kRow) {
        const Stopwatch watch;
        for (int &copy : copies) copy = dup(original);
        took += watch.time();
        must(copies.back(), "dup");
        for (const int copy : copies) syscall(SYS_close, copy);
    }
    close(original);
    return took;
}

Time dup2_alone(long iterations) {
    const int original = open_lock_file();
    Time took;
    for (long done = 0; done < iterations; done += kRow) {
        const Stopwatch watch;
        for (int i = 0; i < kRow; ++i) dup2(original, kFirst + i);
        took += watch.time();
        close_row();
    }
    close(original);
    return took;
}

double children_ns() {
    rusage usage{};
    getrusage(RUSAGE_CHILDREN, &usage);
    const auto ns = [](const timeval &time) {
        return static_cast<double>(time.tv_sec) * 1e9 + static_cast<double>(time.tv_usec) * 1e3;
    };
    return ns(usage.ru_utime) + ns(usage.ru_stime);
}

// Its own time is the parent's and the children's together: the parent sleeps while they compute.
Time fork_and_wait(long iterations) {
    const double children = children_ns();
    const double computed = clock_ns(CLOCK_THREAD_CPUTIME_ID);
    const double begun = clock_ns(CLOCK_MONOTONIC);
    for (long i = 0; i < iterations; ++i) {
        const pid_t child = fork();
        must(child, "fork");
        if (child == 0) _exit(0);
        waitpid(child, nullptr, 0);
    }
    return {clock_ns(CLOCK_THREAD_CPUTIME_ID) - computed + children_ns() - children, clock_ns(CLOCK_MONOTONIC) - begun};
}

// Lock and unlock pairs of one of several at once, each on a file of its own.
void pairs_on_file(int number, long iterations) {
    char name[] = "lock-0";
    name[sizeof(name) - 2] = static_cast<char>('0' + number);
    const int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    must(fd, "open");
    for (long i = 0; i < iterations; ++i) {
        lock_file(Family::flock, fd, true);
        lock_file(Family::flock, fd, false);
    }
    close(fd);
}

constexpr int kAtOnce = 4;

Time pairs_in_threads(long iterations) {
    const double computed = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    const double begun = clock_ns(CLOCK_MONOTONIC);
    std::thread threads[kAtOnce];
    for (int i = 0; i < kAtOnce; ++i) threads[i] = std::thread(pairs_on_file, i, iterations / kAtOnce);
    for (std::thread &thread : threads) thread.join();
    return {clock_ns(CLOCK_PROCESS_CPUTIME_ID) - computed, clock_ns(CLOCK_MONOTONIC) - begun};
}

// Runs `child` in `count` processes; what they compute is the time.
template <class Child>
Time in_processes(int count, const Child &child) {
    const double before = children_ns();
    const double begun = clock_ns(CLOCK_MONOTONIC);
    for (int i = 0; i < count; ++i) {
        const pid_t pid = fork();
        must(pid, "fork");
        if (pid == 0) {
            child(i);
            _exit(0);
        }
    }
    for (int i = 0; i < count; ++i) {
        int status = 0;
        if (wait(&status) < 0 || status != 0) fail("a child process");
    }
    return {children_ns() - before, clock_ns(CLOCK_MONOTONIC) - begun};
}

Time pairs_in_processes(long iterations) {
    return in_processes(kAtOnce, [&](int number) { pairs_on_file(number, iterations / kAtOnce); });
}

// Two processes that take one lock from each other.
Time hand_over(long iterations) {
    return in_processes(2, [&](int) {
        const int fd = open_lock_file();
        for (long i = 0; i < iterations / 2; ++i) {
            lock_file(Family::flock, fd, true);
            work_1us();
            lock_file(Family::flock, fd, false);
        }
    });
}

// As close_alone, while a child holds a lock that this process shares.
Time close_beside_a_shared_lock(long iterations) {
    static bool shared = false;
    if (!shared) {
        shared = true;
        const int fd = open_lock_file();
        in_processes(1, [&](int) { lock_file(Family::flock, fd, true); });
    }
    return close_alone(iterations);
}

// sqlite3(1), each insertion a transaction of its own.
Time sqlite_insertions(long iterations) {
    unlink("rows.db");
    return in_processes(1, [&](int) {
        FILE *script = std::fopen("script.sql", "w");
        if (script == nullptr) fail("script.sql");
        std::fputs("PRAGMA synchronous=OFF; CREATE TABLE rows(n INTEGER);\n", script);
        for (long i = 0; i < iterations; ++i) std::fprintf(script, "INSERT INTO rows VALUES(%ld);\n", i);
        std::fclose(script);
        const int in = open("script.sql", O_RDONLY);
        const int out = open("/dev/null", O_WRONLY);
        if (in < 0 || out < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0) fail("redirection");
        execlp("sqlite3", "sqlite3", "-batch", "rows.db", nullptr);
        fail("sqlite3");
    });
}

// `batch` iterations take a millisecond or so; in the loops that record they fill a chunk of the largest size, so that
// each batch pays for one.
struct Workload {
    const char *name;
    Time (*run)(long iterations);
    long batch;
};

constexpr Workload kWorkloads[] = {
    {"flock_pair", pair<Family::flock>, 4096},
    {"posix_pair", pair<Family::posix>, 4096},
    {"ofd_pair", pair<Family::ofd>, 4096},
    {"flock_held", held<Family::flock>, 2048},
    {"posix_held", held<Family::posix>, 2048},
    {"ofd_held", held<Family::ofd>, 2048},
    {"flock_apart", apart<Family::flock>, 2048},
    {"posix_apart", apart<Family::posix>, 2048},
    {"ofd_apart", apart<Family::ofd>, 2048},
    {"flock_cycle", cycle<Family::flock>, 1400},
    {"posix_cycle", cycle<Family::posix>, 1400},
    {"ofd_cycle", cycle<Family::ofd>, 1400},
    {"close", close_alone, 5 * kRow},
    {"dup", dup_alone, 5 * kRow},
    {"dup2", dup2_alone, 5 * kRow},
    {"fork", fork_and_wait, 40},
    {"flock_threads", pairs_in_threads, 4 * 4096},
    {"flock_processes", pairs_in_processes, 4 * 4096},
    {"hand_over", hand_over, 4000},
    {"close_shared", close_beside_a_shared_lock, 5 * kRow},
    {"sqlite", sqlite_insertions, 2000},
};

double median(std::vector<double> &times) {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

Time measure(const Workload &workload, long iterations) {
    static_cast<void>(workload.run(workload.batch));  // page tables, caches, the shim's first call and small chunks
    std::vector<double> own, whole;
    for (long done = 0; done < iterations; done += workload.batch) {
        const Time took = workload.run(workload.batch);
        own.push_back(took.own_ns / static_cast<double>(workload.batch));
        whole.push_back(took.whole_ns / static_cast<double>(workload.batch));
    }
    return {median(own), median(whole)};
}

}  // namespace

int main(int argc, char **argv) {
    const long iterations = argc == 3 ? std::atol(argv[2]) : 0;
    for (const Workload &workload : kWorkloads) {
        if (iterations <= 0 || std::strcmp(workload.name, argv[1]) != 0) continue;
        const Time time = measure(workload, iterations);
        std::printf("%.3f %.3f\n", time.own_ns, time.whole_ns);
        return 0;
    }
    std::fputs("usage: lock_workload NAME ITERATIONS\n", stderr);
    return 2;
}
