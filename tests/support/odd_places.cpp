// Makes lock calls from the places that a preloaded library can overlook or fall over, and prints what each call
// returned, so that a run plain and a run traced can be compared. What must be looked at in the recording, too, is
// counted by the callers.
//
//   odd_places PLACE FILE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <climits>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

namespace {

const char *path;
std::atomic<int> failures;

// With write(2): also a signal handler and a process that ends say what they saw.
void tell(const char *what, long result, int error = errno) {
    char line[160];
    const int length = std::snprintf(line, sizeof(line), "%s %ld %d\n", what, result, result < 0 ? error : 0);
    if (write(STDOUT_FILENO, line, static_cast<std::size_t>(length)) != length) ++failures;
}

int open_file(const char *name = path) {
    return open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

long lock_and_unlock(int fd) {
    if (flock(fd, LOCK_EX) != 0) return -1;
    return flock(fd, LOCK_UN);
}

long lock_record(int fd, int command, short type, off_t start) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = 1;
    return fcntl(fd, command, &lock);
}

// Waits until the kernel shows that the thread sleeps in a system call: what it was about to do, it does now. A thread
// that only just begins may sleep elsewhere, hence `number`.
void wait_until_in_call(pid_t thread, long number) {
    const std::string name = "/proc/self/task/" + std::to_string(thread) + "/syscall";
    for (;;) {
        char text[32] = {};
        const int fd = open(name.c_str(), O_RDONLY | O_CLOEXEC);
        const bool got = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0;
        if (fd >= 0) close(fd);
        if (got && std::atol(text) == number && text[0] != 'r') return;
        usleep(1000);
    }
}

// --- places ---

std::atomic<int> handled;
int handler_fd = -1;
void lock_in_handler(int) {
    const int saved = errno;
    tell("handler", lock_and_unlock(handler_fd));
    ++handled;
    errno = saved;
}

void in_signal_handler() {
    handler_fd = open_file();
    std::signal(SIGUSR1, lock_in_handler);
    raise(SIGUSR1);  // the first lock call of the process
    tell("own", lock_and_unlock(handler_fd));
    raise(SIGUSR1);
}

// A handler on a stack of its own, the smallest that there is, interrupts lock calls of the same thread.
void in_handler_on_small_stack() {
    static char *stack = static_cast<char *>(std::malloc(16 * 1024));
    stack_t alternative{};
    alternative.ss_sp = stack;
    alternative.ss_size = 16 * 1024;
    tell("sigaltstack", sigaltstack(&alternative, nullptr));
    struct sigaction action {};
    action.sa_handler = lock_in_handler;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGUSR1, &action, nullptr);
    handler_fd = open_file();
    raise(SIGUSR1);
    tell("own", lock_and_unlock(handler_fd));
}

// A handler reaps a child that locked, on a stack with no room for more than that.
std::atomic<int> reaped;
void reap_in_handler(int) {
    const int saved = errno;
    int status = 0;
    while (waitpid(-1, &status, WNOHANG) > 0) reaped = WEXITSTATUS(status);
    errno = saved;
}

void reaped_in_handler_on_smallest_stack() {
    constexpr std::size_t kGuard = 64 * 1024, kRoom = 4096;
    const std::size_t bytes = kRoom + static_cast<std::size_t>(sysconf(_SC_MINSIGSTKSZ));
    void *stack = mmap(nullptr, kGuard + bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (stack == MAP_FAILED || mprotect(stack, kGuard, PROT_NONE) != 0) std::abort();
    stack_t alternative{};
    alternative.ss_sp = static_cast<char *>(stack) + kGuard;
    alternative.ss_size = bytes;
    tell("sigaltstack", sigaltstack(&alternative, nullptr));
    tell("nobody", waitpid(-1, nullptr, WNOHANG));  // so that the call is bound
    struct sigaction action {};
    action.sa_handler = reap_in_handler;
    action.sa_flags = SA_ONSTACK;
    sigaction(SIGCHLD, &action, nullptr);
    if (fork() == 0) _exit(lock_and_unlock(open_file()) == 0 ? 7 : 1);
    while (reaped == 0) usleep(1000);
    tell("child", reaped);
}

int end_fd = -1;
void lock_at_exit() {
    tell("atexit", lock_and_unlock(end_fd));
}
struct LocksWhenDestroyed {
    const char *name;
    int fd = -1;
    ~LocksWhenDestroyed() {
        if (fd >= 0) tell(name, lock_and_unlock(fd));
    }
};
LocksWhenDestroyed global{"destructor"};
void in_exit_handler() {
    end_fd = global.fd = open_file();
    std::atexit(lock_at_exit);
}

void in_thread_local_destructor() {
    std::thread([] {
        static thread_local LocksWhenDestroyed object{"thread_local"};
        object.fd = open_file();
    }).join();
    static int fd = open_file();
    pthread_key_t key = 0;
    pthread_key_create(&key, [](void *) { tell("pthread_key", lock_and_unlock(fd)); });
    std::thread([key] { pthread_setspecific(key, &key); }).join();
}

void while_another_forks() {
    std::atomic<bool> stop = false;
    std::vector<std::thread> lockers;
    for (int i = 0; i < 2; ++i) {
        lockers.emplace_back([&] {
            const int fd = open_file();
            while (!stop) {
                if (lock_and_unlock(fd) != 0) ++failures;
            }
            close(fd);
        });
    }
    for (int i = 0; i < 100; ++i) {
        const pid_t child = fork();
        if (child == 0) {
            const int fd = open_file();
            _exit(fd >= 0 && lock_and_unlock(fd) == 0 ? 7 : 1);
        }
        int status = 0;
        if (waitpid(child, &status, 0) != child || WEXITSTATUS(status) != 7) ++failures;
    }
    stop = true;
    for (std::thread &thread : lockers) thread.join();
    tell("children", 100);
}

void many_threads() {
    constexpr int kThreads = 2500;
    rlimit limit{};  // each thread opens a file, and 1,024 is a common soft limit
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
    const auto stack_bytes = static_cast<std::size_t>(PTHREAD_STACK_MIN) * 4;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, stack_bytes);
    static pthread_barrier_t all;
    pthread_barrier_init(&all, nullptr, kThreads);
    std::vector<pthread_t> threads(kThreads);
    for (pthread_t &thread : threads) {
        const auto work = [](void *) -> void * {
            const int fd = open_file();
            if (fd < 0 || lock_and_unlock(fd) != 0) ++failures;
            pthread_barrier_wait(&all);  // all of them live at once
            close(fd);
            return nullptr;
        };
        if (pthread_create(&thread, &attributes, work, nullptr) != 0) {
            std::perror("pthread_create");
            std::exit(1);
        }
    }
    for (const pthread_t thread : threads) pthread_join(thread, nullptr);
    tell("threads", kThreads);
}

void many_descriptors() {
    constexpr rlim_t kMost = 100'000;
    rlimit limit{};
    getrlimit(RLIMIT_NOFILE, &limit);
    const rlimit raised{kMost, std::max(limit.rlim_max, kMost)};  // root may
    if (setrlimit(RLIMIT_NOFILE, &raised) != 0) {
        limit.rlim_cur = std::min(limit.rlim_max, kMost);
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    const int early = open_file();
    tell("early", lock_and_unlock(early));
    std::vector<int> open_files;
    for (int fd = open_file(); fd >= 0; fd = dup(fd)) open_files.push_back(fd);
    tell("open", static_cast<long>(open_files.size()));
    close(open_files.back());
    const int last = open_file("other");
    tell("last", last);
    tell("flock", lock_and_unlock(last));
    tell("first", lock_and_unlock(open_files.front()));
    const pid_t child = fork();
    if (child == 0) _exit(lock_and_unlock(last) == 0 ? 7 : 1);
    int status = 0;
    waitpid(child, &status, 0);
    tell("child", WEXITSTATUS(status));
}

void on_small_stacks() {
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    tell("stack", pthread_attr_setstacksize(&attributes, static_cast<std::size_t>(PTHREAD_STACK_MIN)));
    const auto work = [](void *) -> void * {
        const int fd = open_file();
        tell("flock", lock_and_unlock(fd));
        tell("fcntl", lock_record(fd, F_SETLK, F_WRLCK, 3));
        tell("close", close(fd));
        return nullptr;
    };
    for (int i = 0; i < 3; ++i) {
        pthread_t thread{};
        const int created = pthread_create(&thread, &attributes, work, nullptr);
        pthread_join(thread, nullptr);
        tell("create", created);
    }
}

// Somebody else holds the lock: a child, so that POSIX locks are in the way too.
class Holder {
  public:
    explicit Holder(bool record) {
        int ready[2];
        if (pipe2(ready, O_CLOEXEC) != 0 || pipe2(go_, O_CLOEXEC) != 0) std::abort();
        child_ = fork();
        if (child_ == 0) {
            close(go_[1]);
            const int fd = open_file();
            const long locked = record ? lock_record(fd, F_SETLK, F_WRLCK, 0) : flock(fd, LOCK_EX);
            char byte = locked == 0 ? 'y' : 'n';
            if (write(ready[1], &byte, 1) != 1 || read(go_[0], &byte, 1) != 0) _exit(1);
            _exit(0);
        }
        close(go_[0]);
        char byte = 0;
        if (read(ready[0], &byte, 1) != 1 || byte != 'y') ++failures;
        close(ready[0]);
        close(ready[1]);
    }
    ~Holder() {
        close(go_[1]);
        waitpid(child_, nullptr, 0);
    }
    Holder(const Holder &) = delete;
    Holder &operator=(const Holder &) = delete;

  private:
    int go_[2];
    pid_t child_;
};

void on_alarm(int) {}

// A handler without SA_RESTART ends the wait with EINTR; SIGALRM is sent again and again, as one can come too early.
void interrupted() {
    struct sigaction action {};
    action.sa_handler = on_alarm;
    sigaction(SIGALRM, &action, nullptr);
    const itimerval often{{0, 20'000}, {0, 20'000}};
    const int fd = open_file();
    for (const bool record : {false, true}) {
        const Holder holder(record);
        setitimer(ITIMER_REAL, &often, nullptr);
        const long result = record ? lock_record(fd, F_SETLKW, F_WRLCK, 0) : flock(fd, LOCK_EX);
        const int error = errno;
        const itimerval never{};
        setitimer(ITIMER_REAL, &never, nullptr);
        tell(record ? "fcntl" : "flock", result, error);
    }
}

// A thread that is cancelled while it waits for a lock ends as cancelled, its handlers run, the process lives on. flock
// is no cancellation point: it ends by a signal.
void cancelled() {
    const Holder holder(true);
    static int fd = open_file();
    static std::atomic<pid_t> waiter;
    pthread_t thread{};
    pthread_create(
        &thread, nullptr,
        [](void *) -> void * {
            pthread_cleanup_push([](void *) { tell("cleanup", 1); }, nullptr);
            waiter = gettid();
            tell("not cancelled", lock_record(fd, F_SETLKW, F_WRLCK, 0));
            pthread_cleanup_pop(0);
            return nullptr;
        },
        nullptr);
    while (waiter == 0) usleep(1000);
    wait_until_in_call(waiter, 72 /* fcntl on x86-64 */);
    const int sent = pthread_cancel(thread);
    void *result = nullptr;
    pthread_join(thread, &result);
    tell("cancel", sent);
    tell("ended as cancelled", result == PTHREAD_CANCELED);
    tell("afterwards", lock_record(fd, F_SETLK, F_WRLCK, 100));
}

void in_library(int how) {
    const std::string name = std::string(std::getenv("PROGRAMS")) + "/libplugin_locker.so";
    void *library = dlopen(name.c_str(), how | RTLD_NOW);
    if (library == nullptr) {
        std::fputs(dlerror(), stderr);
        std::exit(1);
    }
    const auto call = reinterpret_cast<long (*)(const char *)>(dlsym(library, "lock_and_unlock_file"));
    tell("plugin", call(path));
    tell("dlclose", dlclose(library));
}

// Three threads, each with a file of its own and one that all share, between marks once each has begun.
void in_steady_threads() {
    static std::atomic<int> ready;
    constexpr int kThreads = 3;
    const auto mark = [] {
        if (write(STDOUT_FILENO, "mark\n", 5) != 5) ++failures;
    };
    // Opened before any of them locks: a number may be in use for the moment of a thread's first lock call.
    int descriptors[kThreads][2];
    for (int i = 0; i < kThreads; ++i) {
        descriptors[i][0] = open_file(("own" + std::to_string(i)).c_str());
        descriptors[i][1] = open_file();
    }
    std::vector<std::thread> threads;
    for (const auto &[own_fd, shared_fd] : descriptors) {
        threads.emplace_back([own = own_fd, shared = shared_fd, mark] {
            lock_and_unlock(own);
            flock(shared, LOCK_SH);
            flock(shared, LOCK_UN);
            ++ready;
            while (ready < kThreads) usleep(1000);
            mark();
            for (int round = 0; round < 8; ++round) {
                if (lock_and_unlock(own) != 0 || flock(shared, LOCK_SH) != 0) ++failures;
                if (flock(own, 77) == 0 || flock(shared, LOCK_UN) != 0) ++failures;
                char byte = 0;
                if (pread(own, &byte, 1, 0) < 0) ++failures;
            }
            mark();
        });
    }
    for (std::thread &thread : threads) thread.join();
}

// The early libraries' constructors have run (plugin_locker.cpp); here only the lock of the main program.
void before_constructors() {
    tell("main", lock_and_unlock(open_file()));
}

struct Place {
    const char *name;
    void (*visit)();
};
constexpr Place kPlaces[] = {
    {"signal-handler", in_signal_handler},
    {"small-signal-stack", in_handler_on_small_stack},
    {"reaping-handler", reaped_in_handler_on_smallest_stack},
    {"exit-handler", in_exit_handler},
    {"thread-local-destructor", in_thread_local_destructor},
    {"while-another-forks", while_another_forks},
    {"many-threads", many_threads},
    {"many-descriptors", many_descriptors},
    {"small-stacks", on_small_stacks},
    {"interrupted", interrupted},
    {"cancelled", cancelled},
    {"local-library", [] { in_library(RTLD_LOCAL); }},
    {"deepbind-library", [] { in_library(RTLD_DEEPBIND); }},
    {"steady-threads", in_steady_threads},
    {"before-constructors", before_constructors},
};

}  // namespace

int main(int argc, char **argv) {
    if (argc == 3) {
        path = argv[2];
        for (const Place &place : kPlaces) {
            if (std::strcmp(place.name, argv[1]) != 0) continue;
            place.visit();
            tell("failures", failures);
            return failures == 0 ? 0 : 1;
        }
    }
    std::fprintf(stderr, "usage: odd_places PLACE FILE\n");
    return 2;
}
