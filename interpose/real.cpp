#include "interpose/real.h"

#include <dlfcn.h>
#include <errno.h>
#include <gnu/libc-version.h>

#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
#pragma weak _dl_find_object  // so that the program starts where it is missing
#endif

namespace planloop::shim {

std::atomic<void *> real_functions[static_cast<unsigned>(Symbol::count)];

namespace {

enum class When : unsigned char { eager, lazy };

struct Row {
    const char *name;
    When when;
};

constexpr Row kRows[] = {
#define PLANLOOP_HOOK(name, when, result, parameters) {#name, When::when},
#include "interpose/hooks.inc"
#undef PLANLOOP_HOOK
};

}  // namespace

PLANLOOP_AT_START void *resolve(Symbol symbol) noexcept {
    const int saved_errno = errno;
    const auto index = static_cast<unsigned>(symbol);
    void *function = dlsym(RTLD_NEXT, kRows[index].name);
    real_functions[index].store(function, std::memory_order_relaxed);
    errno = saved_errno;
    return function;
}

PLANLOOP_AT_START void resolve_eager() noexcept {
    for (unsigned i = 0; i < static_cast<unsigned>(Symbol::count); ++i) {
        if (kRows[i].when == When::eager) resolve(static_cast<Symbol>(i));
    }
}

bool is_libcs(Symbol symbol) noexcept {
    const auto index = static_cast<unsigned>(symbol);
    void *function = real_functions[index].load(std::memory_order_relaxed);
    if (function == nullptr) function = resolve(symbol);
#if defined(__GLIBC__) && __GLIBC_PREREQ(2, 35)
    dl_find_object its, libcs;
    return &_dl_find_object != nullptr && _dl_find_object(function, &its) == 0 &&
           _dl_find_object(reinterpret_cast<void *>(&gnu_get_libc_version), &libcs) == 0 &&
           its.dlfo_link_map == libcs.dlfo_link_map;
#else
    return false;
#endif
}

}  // namespace planloop::shim
