// A library that locks a file: opened by a program with dlopen(3), or linked, so that its constructor makes its call
// before that of a preloaded library has run; with -z initfirst even before libc's own, when there is no environment
// yet.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdlib>

extern "C" long lock_and_unlock_file(const char *path);
long lock_and_unlock_file(const char *path) {
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0 || flock(fd, LOCK_EX) != 0 || flock(fd, LOCK_UN) != 0) return -1;
    return close(fd);
}

namespace {
// The file must be there: nothing else can tell this constructor whether it is wanted.
__attribute__((constructor)) void lock_early() {
    const char *path = "locked-early";
    if (access(path, F_OK) == 0 && lock_and_unlock_file(path) != 0) std::abort();
}
}  // namespace
