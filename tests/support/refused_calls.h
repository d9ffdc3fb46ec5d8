// A kernel that refuses system calls: what is not at hand on every machine (a file system without locks, no room for
// another thread, no watch left) is a filter in a child process.
#ifndef PLANLOOP_TESTS_SUPPORT_REFUSED_CALLS_H
#define PLANLOOP_TESTS_SUPPORT_REFUSED_CALLS_H

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>

#include <cstddef>
#include <initializer_list>
#include <vector>

namespace planloop::testing {

// From now on the kernel refuses these system calls to this process; with `seconds`, only where the second argument is
// one of them.
inline bool refuse(std::initializer_list<unsigned> calls, int error, std::initializer_list<unsigned> seconds = {}) {
    std::vector<sock_filter> program;
    const auto add = [&](int code, unsigned value, std::size_t skip_if_true = 0, std::size_t skip_if_false = 0) {
        program.push_back({static_cast<unsigned short>(code), static_cast<unsigned char>(skip_if_true),
                           static_cast<unsigned char>(skip_if_false), value});
    };
    for (const unsigned call : calls) {
        add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr));
        add(BPF_JMP | BPF_JEQ | BPF_K, call, 0, seconds.size() == 0 ? 1 : seconds.size() + 2);
        if (seconds.size() > 0) add(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, args[1]));
        std::size_t left = seconds.size();
        for (const unsigned second : seconds) {
            --left;
            add(BPF_JMP | BPF_JEQ | BPF_K, second, left, left == 0 ? 1 : 0);
        }
        add(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error));
    }
    add(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 && ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
}

}  // namespace planloop::testing

#endif
