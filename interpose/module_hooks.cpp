// dlclose(3): another library may be mapped where the closed one was, so what was told of the address space is told
// anew when it is called from again.
#include "interpose/attach.h"
#include "interpose/real.h"

using namespace planloop::shim;

extern "C" int planloop_dlclose(void *handle) PLANLOOP_EXPORT(dlclose);
int planloop_dlclose(void *handle) {
    const int result = real<Symbol::dlclose>()(handle);
    if (ForkPage *page = process.page.load(std::memory_order_acquire)) page->modules.clear();
    return result;
}
