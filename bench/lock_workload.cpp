// One loop of system calls, timed by itself: what side_by_side runs bare, with the shim and under strace.
//
//     lock_workload NAME ITERATIONS        prints the median time of an iteration, in ns
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
#include <vector>

namespace {

double now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

[[noreturn]] void fail(const char *what) {
    std::perror(what);
    std::exit(1);
}

void must(long result, const char *what) {
    if (result < 0) fail(what);
}

// The least that a program does with a file between two calls, without any call of its own.
void work_1us() {
    const double end = now_ns() + 1000;
    while (now_ns() < end) {
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
double pair(long iterations) {
    const int fd = open_lock_file();
    const double begin = now_ns();
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        lock_file(family, fd, false);
    }
    const double took = now_ns() - begin;
    close(fd);
    return took;
}

// Held for a microsecond.
template <Family family>
double held(long iterations) {
    const int fd = open_lock_file();
    const double begin = now_ns();
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        work_1us();
        lock_file(family, fd, false);
    }
    const double took = now_ns() - begin;
    close(fd);
    return took;
}

// A microsecond between a release and the next acquisition: the shim can then no longer be sure that the descriptor
// still means the same file, and has to ask.
template <Family family>
double apart(long iterations) {
    const int fd = open_lock_file();
    const double begin = now_ns();
    for (long i = 0; i < iterations; ++i) {
        lock_file(family, fd, true);
        lock_file(family, fd, false);
        work_1us();
    }
    const double took = now_ns() - begin;
    close(fd);
    return took;
}

template <Family family>
double cycle(long iterations) {
    close(open_lock_file());
    const double begin = now_ns();
    for (long i = 0; i < iterations; ++i) {
        const int fd = open("lock", O_RDWR | O_CLOEXEC);
        lock_file(family, fd, true);
        lock_file(family, fd, false);
        close(fd);
    }
    return now_ns() - begin;
}

// Descriptor calls by the hundred, so that only the one in question is timed.
constexpr int kRow = 200;
constexpr int kFirst = 100;

void close_row() {
    must(syscall(SYS_close_range, kFirst, kFirst + kRow - 1, 0), "close_range");
}

double close_alone(long iterations) {
    const int original = open_lock_file();
    double took = 0;
    for (long done = 0; done < iterations; done += kRow) {
        for (int i = 0; i < kRow; ++i) must(syscall(SYS_dup3, original, kFirst + i, 0), "dup3");
        const double begin = now_ns();
        for (int i = 0; i < kRow; ++i) close(kFirst + i);
        took += now_ns() - begin;
    }
    close(original);
    return took;
}

double dup_alone(long iterations) {
    const int original = open_lock_file();
    std::vector<int> copies(kRow);
    double took = 0;
    for (long done = 0; done < iterations; done += kRow) {
        const double begin = now_ns();
        for (int &copy : copies) copy = dup(original);
        took += now_ns() - begin;
        must(copies.back(), "dup");
        for (const int copy : copies) syscall(SYS_close, copy);
    }
    close(original);
    return took;
}

double dup2_alone(long iterations) {
    const int original = open_lock_file();
    double took = 0;
    for (long done = 0; done < iterations; done += kRow) {
        const double begin = now_ns();
        for (int i = 0; i < kRow; ++i) dup2(original, kFirst + i);
        took += now_ns() - begin;
        close_row();
    }
    close(original);
    return took;
}

double fork_and_wait(long iterations) {
    const double begin = now_ns();
    for (long i = 0; i < iterations; ++i) {
        const pid_t child = fork();
        must(child, "fork");
        if (child == 0) _exit(0);
        waitpid(child, nullptr, 0);
    }
    return now_ns() - begin;
}

// `batch` iterations take a millisecond or so: short enough to be over before the scheduler comes by, and in the loops
// that record long enough to fill a chunk of the largest size, so that each batch pays for one.
struct Workload {
    const char *name;
    double (*run)(long iterations);  // ns for so many iterations
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
    {"close", close_alone, 20 * kRow},
    {"dup", dup_alone, 20 * kRow},
    {"dup2", dup2_alone, 20 * kRow},
    {"fork", fork_and_wait, 10},
};

// How often the scheduler took the processor away from us while we wanted it.
long preemptions() {
    rusage usage{};
    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nivcsw;
}

double median(std::vector<double> &times) {
    const auto middle = times.begin() + static_cast<std::ptrdiff_t>(times.size() / 2);
    std::nth_element(times.begin(), middle, times.end());
    return *middle;
}

// Of the batches that nobody broke into; of all, if somebody broke into nearly every one.
double measure(const Workload &workload, long iterations) {
    static_cast<void>(workload.run(workload.batch));  // page tables, caches, the shim's first call and small chunks
    std::vector<double> clean, all;
    for (long done = 0; done < iterations; done += workload.batch) {
        const long before = preemptions();
        const double took = workload.run(workload.batch) / static_cast<double>(workload.batch);
        if (preemptions() == before) clean.push_back(took);
        all.push_back(took);
    }
    return median(clean.size() * 4 >= all.size() ? clean : all);
}

}  // namespace

int main(int argc, char **argv) {
    const long iterations = argc == 3 ? std::atol(argv[2]) : 0;
    for (const Workload &workload : kWorkloads) {
        if (iterations <= 0 || std::strcmp(workload.name, argv[1]) != 0) continue;
        std::printf("%.3f\n", measure(workload, iterations));
        return 0;
    }
    std::fputs("usage: lock_workload NAME ITERATIONS\n", stderr);
    return 2;
}
