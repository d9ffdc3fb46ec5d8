// Preloaded, it hides that libc can tell which program or library an address is in (glibc before 2.35 could not).
#include <dlfcn.h>

extern "C" int _dl_find_object(void * /*address*/, struct dl_find_object * /*result*/) noexcept {  // NOLINT
    return -1;
}
