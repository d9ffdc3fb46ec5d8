// What a seccomp filter would do to the system calls of the shim. Between two lock calls of a known file it makes none,
// but it must make some at a thread's first lock, and a filter may end the program for a call that its author did not
// think of: seccomp(2).
//
// A pure function: runs the filter, which is classic BPF (linux/filter.h), for each call of kOwnCalls. It errs towards
// `harmful`: when the outcome hangs on arguments or addresses, which are not known in advance. Async-signal-safe.
#ifndef PLANLOOP_INTERPOSE_SECCOMP_FILTER_H
#define PLANLOOP_INTERPOSE_SECCOMP_FILTER_H

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <cstddef>
#include <cstdint>

namespace planloop::shim {

// Every system call that the shim makes on its own behalf; tests/e2e/sandbox_test.py looks whether one is missing.
inline constexpr int kOwnCalls[] = {
    SYS_clock_gettime, SYS_close,          SYS_faccessat,   SYS_fallocate,
    SYS_fcntl,         SYS_fgetxattr,      SYS_fstat,       SYS_fstatfs,
    SYS_getcwd,        SYS_getdents64,     SYS_getegid,     SYS_geteuid,
    SYS_getgid,        SYS_getpid,         SYS_getppid,     SYS_gettid,
    SYS_getuid,        SYS_ioctl,          SYS_kcmp,        SYS_linkat,
    SYS_lseek,         SYS_madvise,        SYS_mkdirat,     SYS_mmap,
    SYS_munmap,        SYS_newfstatat,     SYS_openat,      SYS_ppoll,
    SYS_prctl,         SYS_pread64,        SYS_prlimit64,   SYS_process_vm_readv,
    SYS_pselect6,      SYS_pwrite64,       SYS_pwritev,     SYS_read,
    SYS_readlinkat,    SYS_rt_sigprocmask, SYS_sched_yield, SYS_sigaltstack,
    SYS_statx,         SYS_tgkill,         SYS_tkill,       SYS_unlinkat,
};

#if defined(__x86_64__)
inline constexpr std::uint32_t kAuditArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
inline constexpr std::uint32_t kAuditArchitecture = AUDIT_ARCH_AARCH64;
#endif

// Whether the filter lets the call through, or refuses it with an errno, which the shim can take: whatever its
// arguments.
inline bool filter_spares(const sock_filter *filter, std::size_t length, int call) noexcept {
    std::uint32_t a = 0;
    std::uint32_t x = 0;
    std::uint32_t memory[BPF_MEMWORDS] = {};
    for (std::size_t at = 0; at < length; ++at) {  // jumps lead forwards only
        const sock_filter &step = filter[at];
        const std::uint32_t operand = BPF_SRC(step.code) == BPF_X ? x : step.k;
        switch (step.code) {
            case BPF_LD | BPF_W | BPF_ABS:
                if (step.k == offsetof(seccomp_data, nr)) {
                    a = static_cast<std::uint32_t>(call);
                } else if (step.k == offsetof(seccomp_data, arch)) {
                    a = kAuditArchitecture;
                } else {
                    return false;
                }
                break;
            case BPF_LD | BPF_W | BPF_LEN:
                a = sizeof(seccomp_data);
                break;
            case BPF_LDX | BPF_W | BPF_LEN:
                x = sizeof(seccomp_data);
                break;
            case BPF_LD | BPF_IMM:
                a = step.k;
                break;
            case BPF_LDX | BPF_IMM:
                x = step.k;
                break;
            case BPF_LD | BPF_MEM:
                a = memory[step.k % BPF_MEMWORDS];
                break;
            case BPF_LDX | BPF_MEM:
                x = memory[step.k % BPF_MEMWORDS];
                break;
            case BPF_ST:
                memory[step.k % BPF_MEMWORDS] = a;
                break;
            case BPF_STX:
                memory[step.k % BPF_MEMWORDS] = x;
                break;
            case BPF_MISC | BPF_TAX:
                x = a;
                break;
            case BPF_MISC | BPF_TXA:
                a = x;
                break;
            case BPF_ALU | BPF_AND | BPF_K:
            case BPF_ALU | BPF_AND | BPF_X:
                a &= operand;
                break;
            case BPF_ALU | BPF_OR | BPF_K:
            case BPF_ALU | BPF_OR | BPF_X:
                a |= operand;
                break;
            case BPF_ALU | BPF_ADD:  // BPF_K is 0 as well
            case BPF_ALU | BPF_ADD | BPF_X:
                a += operand;
                break;
            case BPF_ALU | BPF_SUB | BPF_K:
            case BPF_ALU | BPF_SUB | BPF_X:
                a -= operand;
                break;
            case BPF_JMP | BPF_JA:
                at += step.k;
                break;
            case BPF_JMP | BPF_JEQ | BPF_K:
            case BPF_JMP | BPF_JEQ | BPF_X:
                at += a == operand ? step.jt : step.jf;
                break;
            case BPF_JMP | BPF_JGT | BPF_K:
            case BPF_JMP | BPF_JGT | BPF_X:
                at += a > operand ? step.jt : step.jf;
                break;
            case BPF_JMP | BPF_JGE | BPF_K:
            case BPF_JMP | BPF_JGE | BPF_X:
                at += a >= operand ? step.jt : step.jf;
                break;
            case BPF_JMP | BPF_JSET | BPF_K:
            case BPF_JMP | BPF_JSET | BPF_X:
                at += (a & operand) != 0 ? step.jt : step.jf;
                break;
            case BPF_RET | BPF_K:
            case BPF_RET | BPF_A: {
                const std::uint32_t action = (step.code == (BPF_RET | BPF_A) ? a : step.k) & SECCOMP_RET_ACTION_FULL;
                return action == SECCOMP_RET_ALLOW || action == SECCOMP_RET_LOG || action == SECCOMP_RET_ERRNO;
            }
            default:
                return false;
        }
    }
    return false;  // the kernel refuses such a filter
}

inline bool filter_spares_us(const sock_filter *filter, std::size_t length) noexcept {
    for (const int call : kOwnCalls) {
        if (!filter_spares(filter, length, call)) return false;
    }
    return true;
}

}  // namespace planloop::shim

#endif
