// What a dying program leaves behind, written by a signal handler: `errors/.crash/<trace id>.<pid>`. Read, unwound and
// named by lockcore/crash_capture.h when somebody looks.
//
// A file is CrashHeader, then `locks` times CrashLock, then the top of the stack, then a copy of /proc/self/maps to the
// end of the file. It is written under a name that starts with a dot and renamed when it is whole.
//
// Everything here is async-signal-safe: system calls by number, no errno, no allocation, no library call; usable in the
// preloaded library. All that needs more than that (paths, trace id) is prepared before.
#ifndef PLANLOOP_LOCKCORE_WIRE_CRASH_DUMP_H
#define PLANLOOP_LOCKCORE_WIRE_CRASH_DUMP_H

#include <fcntl.h>
#include <linux/fs.h>
#include <signal.h>
#include <stddef.h>
#include <time.h>
#include <ucontext.h>

#include <cstdint>

#include "lockcore/wire/raw_syscall.h"

namespace planloop::wire {

// By their DWARF numbers (x86-64 psABI figure 3.36; AArch64 DWARF, table 4), the program counter last.
#if defined(__aarch64__)
inline constexpr unsigned kCrashRegisterCount = 33;
inline constexpr unsigned kStackPointerRegister = 31;
#else
inline constexpr unsigned kCrashRegisterCount = 17;
inline constexpr unsigned kStackPointerRegister = 7;
#endif

struct CrashRegisters {
    std::uint64_t values[kCrashRegisterCount];
    std::uint64_t program_counter() const noexcept { return values[kCrashRegisterCount - 1]; }
    std::uint64_t stack_pointer() const noexcept { return values[kStackPointerRegister]; }
};

struct CrashLock {
    std::int64_t since_utc_ns;
    std::uint8_t held;  // 0: awaited
    std::uint8_t shared;
    char family[22];
    char path[224];
};

inline constexpr char kCrashMagic[8] = {'P', 'L', 'C', 'R', 'A', 'S', 'H', '1'};
inline constexpr std::size_t kMostCrashLocks = 32;
inline constexpr std::size_t kMostStackBytes = std::size_t{512} << 10;

struct CrashHeader {
    char magic[8];
    std::uint32_t header_bytes, register_count;
    std::int32_t signal, code;
    std::int32_t pid, tid;
    std::int64_t utc_ns;
    std::uint64_t fault_address;
    CrashRegisters registers;
    std::uint64_t stack_begin, stack_bytes;
    std::uint32_t locks, reserved;
    char trace_id[72], operation[72], process[32];
};
static_assert(sizeof(CrashLock) == 256);

// Made before anything goes wrong.
struct CrashPlan {
    char folder[3800];   // `errors/.crash`, which exists
    CrashHeader header;  // trace_id, operation, process
};

inline std::size_t append_crash_text(char *to, std::size_t at, std::size_t room, const char *text) noexcept {
    while (*text != '\0' && at + 1 < room) to[at++] = *text++;
    to[at] = '\0';
    return at;
}
inline std::size_t append_crash_number(char *to, std::size_t at, std::size_t room, std::uint32_t number) noexcept {
    char digits[12];
    std::size_t first = sizeof(digits) - 1;
    digits[first] = '\0';
    do {
        digits[--first] = static_cast<char>('0' + number % 10);
        number /= 10;
    } while (number != 0);
    return append_crash_text(to, at, room, digits + first);
}

inline void copy_registers(const ucontext_t &context, CrashRegisters &to) noexcept {
#if defined(__x86_64__)
    constexpr int kOrder[kCrashRegisterCount] = {REG_RAX, REG_RDX, REG_RCX, REG_RBX, REG_RSI, REG_RDI,
                                                 REG_RBP, REG_RSP, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                                 REG_R12, REG_R13, REG_R14, REG_R15, REG_RIP};
    for (unsigned i = 0; i < kCrashRegisterCount; ++i) {
        to.values[i] = static_cast<std::uint64_t>(context.uc_mcontext.gregs[kOrder[i]]);
    }
#elif defined(__aarch64__)
    for (unsigned i = 0; i < 31; ++i) to.values[i] = context.uc_mcontext.regs[i];
    to.values[31] = context.uc_mcontext.sp;
    to.values[32] = context.uc_mcontext.pc;
#endif
}

inline bool write_all(int fd, const void *data, std::size_t bytes) noexcept {
    const auto *at = static_cast<const char *>(data);
    while (bytes > 0) {
        const long wrote = raw_syscall(SYS_write, fd, at, bytes);
        if (wrote <= 0) return false;
        at += wrote;
        bytes -= static_cast<std::size_t>(wrote);
    }
    return true;
}

// As much of the stack as is mapped: write(2) tells by EFAULT where it ends. After an overflow the pointer itself may
// stand in the guard below: then from the first page that is there. Gives where the copy begins.
inline std::uint64_t write_stack(int fd, std::uint64_t from, std::uint64_t &bytes) noexcept {
    constexpr std::uint64_t kPage = 4096;
    constexpr int kMostGuardPages = 64;
    long wrote = -1;
    for (int guard = 0; guard <= kMostGuardPages; ++guard) {
        const std::uint64_t end = (from / kPage + 1) * kPage;
        wrote = raw_syscall(SYS_write, fd, from, end - from);
        if (wrote > 0) break;
        from = end;
    }
    std::uint64_t at = from;
    while (wrote > 0) {
        at += static_cast<std::uint64_t>(wrote);
        if (at % kPage != 0 || at - from >= kMostStackBytes) break;
        wrote = raw_syscall(SYS_write, fd, at, kPage);
    }
    bytes = at - from;
    return from;
}

inline void write_maps(int fd) noexcept {
    const long maps = raw_syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC, 0);
    if (maps < 0) return;
    char piece[4096];
    for (;;) {
        const long got = raw_syscall(SYS_read, maps, piece, sizeof(piece));
        if (got <= 0 || !write_all(fd, piece, static_cast<std::size_t>(got))) break;
    }
    raw_syscall(SYS_close, maps);
}

// What is to be done when a signal's handler has written its dump: the process then dies as it would have. A fault
// comes again when the handler returns, with the same core; what was sent is sent again, with the same siginfo.
inline void die_as_before(int signal, siginfo_t *info) noexcept {
    struct KernelAction {  // of rt_sigaction(2)
        void *handler;
        unsigned long flags;
        void *restorer;
        std::uint64_t mask;
    } by_default{};
    raw_syscall(SYS_rt_sigaction, signal, &by_default, nullptr, sizeof(by_default.mask));
    if (info != nullptr && info->si_code > 0) return;
    const long pid = raw_syscall(SYS_getpid);
    const long tid = raw_syscall(SYS_gettid);
    if (info == nullptr || raw_syscall(SYS_rt_tgsigqueueinfo, pid, tid, signal, info) != 0) {
        raw_syscall(SYS_tgkill, pid, tid, signal);
    }
}

// The whole dump. `locks` may be nullptr when there are none. Nothing half-written stays where the disk is full.
inline void write_crash_dump(CrashPlan &plan, int signal, const siginfo_t *info, const void *context,
                             const CrashLock *locks, std::uint32_t lock_count) noexcept {
    CrashHeader &header = plan.header;
    for (unsigned i = 0; i < sizeof(kCrashMagic); ++i) header.magic[i] = kCrashMagic[i];
    header.header_bytes = sizeof(CrashHeader);
    header.register_count = kCrashRegisterCount;
    header.signal = signal;
    header.code = info != nullptr ? info->si_code : 0;
    header.fault_address = info != nullptr ? reinterpret_cast<std::uint64_t>(info->si_addr) : 0;
    header.pid = static_cast<std::int32_t>(raw_syscall(SYS_getpid));
    header.tid = static_cast<std::int32_t>(raw_syscall(SYS_gettid));
    timespec now{};
    raw_syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    header.utc_ns = std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    if (context != nullptr) copy_registers(*static_cast<const ucontext_t *>(context), header.registers);
    header.locks = lock_count;

    char finished[4096];
    char unfinished[4096];
    char *const paths[] = {unfinished, finished};
    for (char *path : paths) {
        std::size_t at = append_crash_text(path, 0, sizeof(finished), plan.folder);
        at = append_crash_text(path, at, sizeof(finished), path == unfinished ? "/." : "/");
        at = append_crash_text(path, at, sizeof(finished), header.trace_id[0] != '\0' ? header.trace_id : "untraced");
        at = append_crash_text(path, at, sizeof(finished), ".");
        append_crash_number(path, at, sizeof(finished), static_cast<std::uint32_t>(header.pid));
    }
    const int fd = static_cast<int>(
        raw_syscall(SYS_openat, AT_FDCWD, unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (fd < 0) return;
    bool whole = write_all(fd, &header, sizeof(header));
    whole = whole && (lock_count == 0 || write_all(fd, locks, lock_count * sizeof(CrashLock)));
    if (whole) {
        header.stack_begin = write_stack(fd, header.registers.stack_pointer(), header.stack_bytes);
        write_maps(fd);
        // Again, now that the stack's length is known.
        whole = raw_syscall(SYS_pwrite64, fd, &header, sizeof(header), 0) == static_cast<long>(sizeof(header));
    }
    raw_syscall(SYS_close, fd);
    if (whole) {
        raw_syscall(SYS_renameat2, AT_FDCWD, unfinished, AT_FDCWD, finished, 0);
    } else {
        raw_syscall(SYS_unlinkat, AT_FDCWD, unfinished, 0);
    }
}

}  // namespace planloop::wire

#endif
