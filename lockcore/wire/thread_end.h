// Whether a thread has ended though its number is still taken: its process was not waited for, or goes on without the
// first of its threads. A signal reaches such a thread like a living one; only /proc/PID/stat tells.
//
// Async-signal-safe, no errno. False when that cannot be told: no /proc, or another PID namespace's, or no descriptor.
#ifndef PLANLOOP_LOCKCORE_WIRE_THREAD_END_H
#define PLANLOOP_LOCKCORE_WIRE_THREAD_END_H

#include <fcntl.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>

#include "lockcore/wire/raw_syscall.h"

namespace planloop::wire {

inline bool proc_has_numbers_of_ours() noexcept {
    char link[16] = {};
    if (raw_syscall(SYS_readlinkat, AT_FDCWD, "/proc/self", link, sizeof(link) - 1) <= 0) return false;
    long number = 0;
    for (const char *digit = link; *digit >= '0' && *digit <= '9'; ++digit) number = number * 10 + (*digit - '0');
    return number == raw_syscall(SYS_getpid);
}

inline bool has_ended(std::int32_t tid) noexcept {
    if (tid <= 0 || !proc_has_numbers_of_ours()) return false;
    char path[32] = "/proc/";  // any thread's number leads somewhere there
    char digits[16];
    std::size_t count = 0, length = 6;
    for (std::int32_t rest = tid; rest != 0; rest /= 10) digits[count++] = static_cast<char>('0' + rest % 10);
    while (count > 0) path[length++] = digits[--count];
    for (const char c : {'/', 's', 't', 'a', 't'}) path[length++] = c;
    const auto fd = static_cast<int>(raw_syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0));
    if (fd < 0) return false;
    char text[256];  // the state comes after the name, which has 64 characters at most and may hold a parenthesis
    const long got = raw_syscall(SYS_read, fd, text, sizeof(text));
    raw_syscall(SYS_close, fd);
    for (long at = got - 3; at >= 0; --at) {
        if (text[at] == ')') return text[at + 2] == 'Z' || text[at + 2] == 'X';
    }
    return false;
}

}  // namespace planloop::wire

#endif
