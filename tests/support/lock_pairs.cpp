// Locks and unlocks a file so many times: lock_pairs FILE COUNT. For counting what a pair costs.
#include <fcntl.h>
#include <sys/file.h>

#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv) {
    const int fd = argc == 3 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0) {
        std::fputs("usage: lock_pairs FILE COUNT\n", stderr);
        return 2;
    }
    for (long left = std::atol(argv[2]); left > 0; --left) {
        if (flock(fd, LOCK_EX) != 0 || flock(fd, LOCK_UN) != 0) return 1;
    }
    return 0;
}
