// Runs under a seccomp filter that ends the process at any system call that is not listed, and prints what its lock
// calls return.
//
//   sandboxed CALLS HOW FILE [CMD...]
//
// CALLS: a file with the numbers of the calls that are allowed; `-` for no filter, to find out which are made.
// HOW: `lock` locks before and after, in a child too; `exec` becomes CMD; `spawn` starts CMD and waits for it.
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

sock_filter step(int code, std::uint32_t k, std::uint8_t jump = 0) {
    return {static_cast<std::uint16_t>(code), jump, 0, k};
}

// Installed through prctl or, as libseccomp does it, through syscall(2).
void forbid_all_but(const char *list, bool by_prctl) {
    if (std::strcmp(list, "-") == 0) return;
    std::vector<sock_filter> filter{step(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
    std::ifstream numbers(list);
    for (std::uint32_t number = 0; numbers >> number;) {
        filter.push_back({BPF_JMP | BPF_JEQ | BPF_K, 0, 1, number});
        filter.push_back(step(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
    }
    filter.push_back(step(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS));
    const sock_fprog program{static_cast<unsigned short>(filter.size()), filter.data()};
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const long done = by_prctl ? prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0)
                               : syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
    if (done != 0) std::abort();
}

void tell(const char *what, long result) {
    const int error = errno;
    std::printf("%s %ld %d\n", what, result, result < 0 ? error : 0);
    std::fflush(stdout);
}

void lock_and_unlock(const char *what, int fd) {
    static struct flock record {};
    tell(what, flock(fd, LOCK_EX));
    tell(what, flock(fd, LOCK_UN));
    record = {F_WRLCK, SEEK_CUR, 0, 5, 0};
    tell(what, fcntl(fd, F_SETLKW, &record));
    tell(what, lockf(fd, F_ULOCK, 5));
}

int lock_all(const char *list, const char *path) {
    const int before = open(path, O_RDWR);
    lock_and_unlock("before", before);
    flock(before, LOCK_EX);
    forbid_all_but(list, true);
    lock_and_unlock("after", before);
    const int fresh = open(path, O_RDWR);
    lock_and_unlock("fresh", fresh);
    tell("dup", dup2(fresh, 9));
    close(9);
    const pid_t child = fork();
    if (child == 0) {
        lock_and_unlock("child", fresh);
        _exit(3);
    }
    int status = 0;
    waitpid(child, &status, 0);
    tell("child", WEXITSTATUS(status));
    close(fresh);
    return 7;
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 4) return 2;
    const std::string how = argv[2];
    if (how == "lock") return lock_all(argv[1], argv[3]);
    forbid_all_but(argv[1], false);
    if (how == "exec") execv(argv[4], argv + 4);
    pid_t child = 0;
    int status = 0;
    if (how != "spawn" || posix_spawn(&child, argv[4], nullptr, nullptr, argv + 4, environ) != 0) return 2;
    waitpid(child, &status, 0);
    return WEXITSTATUS(status);
}
