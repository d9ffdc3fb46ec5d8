// Real processes for unit tests: a forked child that runs a function, and hands single bytes to and fro with its
// parent, which is how a test knows what the other one has done without sleeping.
#ifndef PLANLOOP_TESTS_SUPPORT_CHILD_PROCESS_H
#define PLANLOOP_TESTS_SUPPORT_CHILD_PROCESS_H

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <functional>
#include <stdexcept>
#include <string>

namespace planloop::testing {

// One end of the connection between a child and its parent.
class Line {
  public:
    explicit Line(int fd) : fd_(fd) {}
    void tell(char what) const {
        if (::send(fd_, &what, 1, MSG_NOSIGNAL) != 1) throw std::runtime_error("the other process is gone");
    }
    // What the other side told; 0 when it ended.
    char hear() const {
        char what = 0;
        return ::read(fd_, &what, 1) == 1 ? what : '\0';
    }
    int fd() const { return fd_; }

  private:
    int fd_;
};

class Child {
  public:
    // The child exits with what the function returns, or 99 if it throws.
    explicit Child(const std::function<int(Line &)> &run) {
        int ends[2];
        if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) throw std::runtime_error("socketpair");
        std::fflush(nullptr);
        pid_ = ::fork();
        if (pid_ == 0) {
            ::close(ends[0]);
            Line line(ends[1]);
            int status = 99;
            try {
                status = run(line);
            } catch (const std::exception &error) {
                std::fprintf(stderr, "child %d: %s\n", ::getpid(), error.what());
            }
            ::_exit(status);
        }
        ::close(ends[1]);
        fd_ = ends[0];
    }
    Child(const Child &) = delete;
    Child &operator=(const Child &) = delete;
    ~Child() {
        if (pid_ > 0) kill();
        ::close(fd_);
    }

    pid_t pid() const { return pid_; }
    void tell(char what) const { Line(fd_).tell(what); }
    char hear() const { return Line(fd_).hear(); }
    int fd() const { return fd_; }
    void kill() {
        ::kill(pid_, SIGKILL);
        status();
    }
    // -1: as far as this process has waited for it, it runs.
    int status_if_ended() const { return ended_; }
    // Waits for its end: the exit status, or 128 and the signal.
    int status() {
        if (pid_ <= 0) return ended_;
        int status = 0;
        while (::waitpid(pid_, &status, 0) < 0) {
        }
        pid_ = -1;
        return ended_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }

  private:
    pid_t pid_ = -1;
    int fd_ = -1;
    int ended_ = -1;
};

class TemporaryFolder {
  public:
    // Below /dev/shm: in memory, where thousands of fsync(2) do not measure the disk.
    explicit TemporaryFolder(const std::string &parent = "/tmp") : path_(parent + "/planloop-unit-XXXXXX") {
        if (::mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp");
    }
    ~TemporaryFolder() {
        const std::string command = "chmod -R u+rwX '" + path_ + "'; rm -rf '" + path_ + "'";
        static_cast<void>(::system(command.c_str()) == 0);  // NOLINT(cert-env33-c,concurrency-mt-unsafe)
    }
    TemporaryFolder(const TemporaryFolder &) = delete;
    TemporaryFolder &operator=(const TemporaryFolder &) = delete;
    const std::string &path() const { return path_; }
    std::string file(const std::string &name) const { return path_ + '/' + name; }

  private:
    std::string path_;
};

// Whether the kernel says that the process (or one of its threads) waits for a lock of the file.
inline bool kernel_says_waiting(pid_t pid, const std::string &path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) return false;
    const std::string owner = ' ' + std::to_string(pid) + ' ';
    const std::string inode = ':' + std::to_string(status.st_ino) + ' ';
    std::ifstream locks("/proc/locks");
    for (std::string line; std::getline(locks, line);) {
        if (line.find("->") != std::string::npos && line.find(owner) != std::string::npos &&
            line.find(inode) != std::string::npos) {
            return true;
        }
    }
    return false;
}

inline void wait_until_kernel_says_waiting(pid_t pid, const std::string &path) {
    while (!kernel_says_waiting(pid, path)) ::usleep(2000);
}

}  // namespace planloop::testing

#endif
