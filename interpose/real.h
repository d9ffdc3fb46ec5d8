// The functions that the hooks stand in front of, as the next library in the search order has them: another preloaded
// library keeps its turn. real.cpp is the only file that calls dlsym.
//
// real<Symbol::close>()(fd) calls the real close. A lazy one is resolved at its first call; dlsym takes locks, so what
// may be called from a signal handler or a vfork child is resolved by the constructor.
#ifndef PLANLOOP_INTERPOSE_REAL_H
#define PLANLOOP_INTERPOSE_REAL_H

#include <dirent.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/wait.h>

#include <atomic>
#include <cerrno>

namespace planloop::shim {

enum class Symbol : unsigned char {
#define PLANLOOP_HOOK(name, when, result, parameters) name,
#include "interpose/hooks.inc"
#undef PLANLOOP_HOOK
    count
};

template <Symbol>
struct SymbolType;
#define PLANLOOP_HOOK(name, when, result, parameters) \
    template <>                                       \
    struct SymbolType<Symbol::name> {                 \
        using Function = result parameters;           \
    };
#include "interpose/hooks.inc"
#undef PLANLOOP_HOOK

extern std::atomic<void *> real_functions[static_cast<unsigned>(Symbol::count)];

// Never null: a program that got as far as calling the hook was linked against the function.
void *resolve(Symbol symbol) noexcept;
void resolve_eager() noexcept;
// Whether the function is libc's own, and not one that another library put in front of it.
bool is_libcs(Symbol symbol) noexcept;

template <Symbol symbol>
inline typename SymbolType<symbol>::Function *real() noexcept {
    void *function = real_functions[static_cast<unsigned>(symbol)].load(std::memory_order_relaxed);
    if (__builtin_expect(function == nullptr, 0)) function = resolve(symbol);
    return reinterpret_cast<typename SymbolType<symbol>::Function *>(function);
}

// A return more than the program's own costs 10 ns behind a system call, 1.07 of a dup: the kernel leaves the
// processor's predictor of returns filled with its own. So where the next function in line is libc's, which does no
// more and is no cancellation point, the hook makes the program's call itself. Whether it may, asked once:
template <Symbol symbol>
inline bool may_stand_in() noexcept {
    enum Way : unsigned char { unknown, libcs, anothers };
    static std::atomic<Way> way{unknown};
    Way known = way.load(std::memory_order_relaxed);
    if (__builtin_expect(known == unknown, 0)) {
        known = is_libcs(symbol) ? libcs : anothers;
        way.store(known, std::memory_order_relaxed);
    }
    return known == libcs;
}
// What libc makes of what the kernel said.
inline int libcs_result(long result) noexcept {
    if (__builtin_expect(result >= 0, 1)) return static_cast<int>(result);
    errno = static_cast<int>(-result);
    return -1;
}

}  // namespace planloop::shim

// A hook's C++ name differs from its symbol, so that it needs not repeat libc's declaration with its attributes.
#define PLANLOOP_EXPORT(symbol) __asm__(#symbol) __attribute__((visibility("default")))

// Code of every start goes together: each 64 KiB of a library that are touched cost a fault.
#define PLANLOOP_AT_START __attribute__((section(".text.startup")))

#endif
