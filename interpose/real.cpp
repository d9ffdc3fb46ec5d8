#include "interpose/real.h"

#include <dlfcn.h>
#include <errno.h>

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

}  // namespace planloop::shim
