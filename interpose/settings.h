// What the environment asks for, read once before main: later the program may have changed or cleared it.
//
//   PLANLOOP_SESSION     the session to record into; empty or missing: the shim does nothing. Behind a '!' a value may
//                        carry what the process inherits: see inherited.h; or kSealedMark: do nothing, see sandbox.h
//   PLANLOOP_HOME        default $HOME/.planloop
//   PLANLOOP_TRACE_ID    the trace id that this process and its children carry
//   PLANLOOP_RING        a size, as 64M: a session that is new becomes a flight recorder of that size
//   PLANLOOP_CAPTURE_CRASHES=1  see crash.h
//   PLANLOOP_NO_RECORDING=1  the shim does nothing
#ifndef PLANLOOP_INTERPOSE_SETTINGS_H
#define PLANLOOP_INTERPOSE_SETTINGS_H

#include <cstddef>
#include <cstdint>

namespace planloop::shim {

inline constexpr char kSealedMark[] = "!-";

struct Settings {
    static constexpr std::size_t kMostPath = 3072;
    bool read = false;
    bool enabled = false;
    bool sealed = false;    // system calls are forbidden: make none
    bool inherits = false;  // PLANLOOP_SESSION carried descriptors
    bool carried = false;   // PLANLOOP_SESSION itself was added by the shim
    bool captures_crashes = false;
    std::uint64_t ring_bytes = 0;
    char session[129] = {};
    char trace_id[80] = {};
    char own_preload[512] = {};         // this library, as LD_PRELOAD names it; empty: not known
    char spool_folder[kMostPath] = {};  // absolute; behind what is short, so that a start writes to one page
    char inherited[1536] = {};          // what stood behind the '!'
};

extern Settings settings;

// Reads the environment if nobody has; idempotent, and safe before any constructor. Async-signal-safe.
void read_settings() noexcept;

// Whether lock calls are recorded at all, as far as the environment says. Async-signal-safe.
inline bool may_record() noexcept {
    if (!settings.read) read_settings();
    return settings.enabled;
}

// Takes off PLANLOOP_SESSION what the shim put there. Called by the constructor, before the program looks.
void hide_carried_settings() noexcept;

// Makes the session's folders (0700) as far as they are missing; false when they cannot be.
bool make_spool_folder() noexcept;

}  // namespace planloop::shim

#endif
