// System calls without libc: what the recorder asks of the kernel on its own behalf must not run through the hooks
// that it lives in, must leave the program's errno alone, and must be no cancellation point.
//
// Returns what the kernel returns: a negative errno on failure. Async-signal-safe. x86-64 and AArch64.
#ifndef PLANLOOP_LOCKCORE_WIRE_RAW_SYSCALL_H
#define PLANLOOP_LOCKCORE_WIRE_RAW_SYSCALL_H

#include <sys/syscall.h>

#include <cerrno>
#include <cstddef>
#include <type_traits>

namespace planloop::wire {

#if defined(__x86_64__)
inline long raw_syscall6(long number, long a, long b, long c, long d, long e, long f) noexcept {
    register long r10 asm("r10") = d;
    register long r8 asm("r8") = e;
    register long r9 asm("r9") = f;
    long result = number;
    asm volatile("syscall"
                 : "+a"(result)
                 : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                 : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
inline long raw_syscall6(long number, long a, long b, long c, long d, long e, long f) noexcept {
    register long x8 asm("x8") = number;
    register long x0 asm("x0") = a;
    register long x1 asm("x1") = b;
    register long x2 asm("x2") = c;
    register long x3 asm("x3") = d;
    register long x4 asm("x4") = e;
    register long x5 asm("x5") = f;
    asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
}
#else
#error "planloop's recorder knows the system call convention of x86-64 and AArch64 only"
#endif

template <class T>
long syscall_word(T value) noexcept {
    if constexpr (std::is_pointer_v<T>) {
        return reinterpret_cast<long>(value);
    } else {
        return static_cast<long>(value);
    }
}
inline long syscall_word(decltype(nullptr)) noexcept {
    return 0;
}

template <class... Args>
long raw_syscall(long number, Args... args) noexcept {
    static_assert(sizeof...(args) <= 6);
    const long words[6] = {syscall_word(args)...};
    return raw_syscall6(number, words[0], words[1], words[2], words[3], words[4], words[5]);
}

// Whether the first and the last byte of `bytes` (8 at least, 4096 at most) at `address` may be read. Asks the kernel,
// through a call that every sandbox allows: it copies the set before it looks at what to do with it.
inline bool readable(const void *address, std::size_t bytes) noexcept {
    constexpr int kNothingToDo = -1;
    constexpr std::size_t kSetBytes = 8;
    const char *begin = static_cast<const char *>(address);
    const long first = raw_syscall(SYS_rt_sigprocmask, kNothingToDo, begin, nullptr, kSetBytes);
    return first != -EFAULT &&
           raw_syscall(SYS_rt_sigprocmask, kNothingToDo, begin + bytes - kSetBytes, nullptr, kSetBytes) != -EFAULT;
}

}  // namespace planloop::wire

#endif
