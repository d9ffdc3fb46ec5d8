// A program that no preloaded library can get into: linked statically, it locks the file it is given and says so.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstdio>

int main(int argc, char **argv) {
    const int fd = argc == 2 ? open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
    if (fd == -1 || flock(fd, LOCK_EX) != 0) {
        std::perror("static_locker");
        return 1;
    }
    std::puts("locked");
    return 7;
}
