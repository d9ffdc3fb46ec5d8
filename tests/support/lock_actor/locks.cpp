// What an actor does with locks.
#include <fcntl.h>
#include <pthread.h>
#include <shadow.h>
#include <sys/file.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <ctime>
#include <string>
#include <vector>

#include "lock_actor/actor.h"

namespace lock_actor {
namespace {

// flock FD sh|ex|un [nb]
Answer do_flock(const Words &words) {
    const int operation = has(words, "sh") ? LOCK_SH : has(words, "ex") ? LOCK_EX : LOCK_UN;
    const int flags = operation | (has(words, "nb") ? LOCK_NB : 0);
    const int fd = fd_of(words, 1);
    return measured([&] { return flock(fd, flags); });
}

// fcntl FD COMMAND rd|wr|un START LENGTH [cur|end]; COMMAND: setlk setlkw getlk ofd_setlk ofd_setlkw
Answer do_fcntl(const Words &words) {
    const std::string &name = words.at(2);
    const int command = name == "setlk"       ? F_SETLK
                        : name == "setlkw"    ? F_SETLKW
                        : name == "getlk"     ? F_GETLK
                        : name == "ofd_setlk" ? F_OFD_SETLK
                                              : F_OFD_SETLKW;
    struct flock range = {};
    range.l_type = has(words, "rd") ? F_RDLCK : has(words, "wr") ? F_WRLCK : F_UNLCK;
    range.l_whence = has(words, "cur") ? SEEK_CUR : has(words, "end") ? SEEK_END : SEEK_SET;
    range.l_start = number(words, 4);
    range.l_len = number(words, 5);
    const int fd = fd_of(words, 1);
    return measured([&] { return fcntl(fd, command, &range); });
}

// sys_flock and sys_ofd: flock and an OFD lock of the whole file, through syscall(2). FD sh|ex|un [nb]
Answer do_sys_flock(const Words &words) {
    const int operation = has(words, "sh") ? LOCK_SH : has(words, "ex") ? LOCK_EX : LOCK_UN;
    const int flags = operation | (has(words, "nb") ? LOCK_NB : 0);
    const int fd = fd_of(words, 1);
    return measured([&] { return syscall(SYS_flock, fd, flags); });
}

Answer do_sys_ofd(const Words &words) {
    struct flock range = {};
    range.l_type = has(words, "sh") ? F_RDLCK : has(words, "ex") ? F_WRLCK : F_UNLCK;
    const int fd = fd_of(words, 1);
    const int command = has(words, "nb") ? F_OFD_SETLK : F_OFD_SETLKW;
    return measured([&] { return syscall(SYS_fcntl, fd, command, &range); });
}

Answer do_lckpwdf(const Words &words) {
    return measured([&] { return words[0] == "lckpwdf" ? lckpwdf() : ulckpwdf(); });
}

pthread_t waiting_thread;

int waiting_fd = -1;

// waiter FD: a thread waits for a POSIX lock of the whole file.  cancel_waiter: is cancelled, and joined.
Answer do_waiter(const Words &words) {
    waiting_fd = fd_of(words, 1);
    return measured([] {
        return pthread_create(
            &waiting_thread, nullptr,
            [](void *) -> void * {
                struct flock range = {};
                range.l_type = F_WRLCK;
                fcntl(waiting_fd, F_SETLKW, &range);
                return nullptr;
            },
            nullptr);
    });
}

Answer do_cancel_waiter(const Words & /*words*/) {
    return measured([] {
        void *ended = nullptr;
        pthread_cancel(waiting_thread);
        pthread_join(waiting_thread, &ended);
        return ended == PTHREAD_CANCELED ? 0 : -1;
    });
}

// lockf FD lock|tlock|ulock LENGTH
Answer do_lockf(const Words &words) {
    const int command = words.at(2) == "lock" ? F_LOCK : words.at(2) == "tlock" ? F_TLOCK : F_ULOCK;
    const int fd = fd_of(words, 1);
    const off_t length = number(words, 3);
    return measured([&] { return lockf(fd, command, length); });
}

// Keeps what it holds for so many nanoseconds.
Answer do_hold(const Words &words) {
    const long ns = number(words, 1);
    return measured([&] {
        timespec left{ns / 1'000'000'000, ns % 1'000'000'000};
        while (nanosleep(&left, &left) != 0) {
        }
        return 0;
    });
}

}  // namespace

const std::vector<Command> &lock_commands() {
    static const std::vector<Command> commands = {
        {"flock", do_flock},         {"fcntl", do_fcntl},
        {"lockf", do_lockf},         {"hold", do_hold},
        {"sys_flock", do_sys_flock}, {"sys_ofd", do_sys_ofd},
        {"lckpwdf", do_lckpwdf},     {"ulckpwdf", do_lckpwdf},
        {"waiter", do_waiter},       {"cancel_waiter", do_cancel_waiter},
    };
    return commands;
}

}  // namespace lock_actor
