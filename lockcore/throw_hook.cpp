// The function by which the compiler throws, under the name that it has there (Itanium C++ ABI: Exception Handling,
// 2.4.3); the run-time library's own is the next of this name.
//
// A file of its own: whatever program throws anything asks the linker for this name and is given this file, and must
// not get, and pay for, what looks at throws (throw_trace.cpp) unless it uses that.

#include <dlfcn.h>

#include <cstdlib>
#include <typeinfo>

#include "lockcore/span_of_thread.h"

namespace planloop::recording {

constinit std::atomic<SeesThrow *> sees_throws{nullptr};

}  // namespace planloop::recording

extern "C" void planloop_throw(void *object, std::type_info *type, void (*destroy)(void *)) __asm__("__cxa_throw");

extern "C" [[gnu::noinline]] void planloop_throw(void *object, std::type_info *type, void (*destroy)(void *)) {
    static const auto forward = reinterpret_cast<decltype(&planloop_throw)>(dlsym(RTLD_NEXT, "__cxa_throw"));
    auto *const sees = planloop::recording::sees_throws.load(std::memory_order_relaxed);
    if (sees != nullptr) sees(object, type, __builtin_return_address(0));
    forward(object, type, destroy);
    std::abort();  // never reached: the other does not return
}
