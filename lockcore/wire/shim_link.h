// How a program that records its own locks (lockcore) and the preloaded library share a process: each lock is counted
// once, and both write into one stream for each thread, so that a report knows one process and one thread, not two.
//
// The library exports planloop_shim_link(); lockcore looks it up with dlsym(3) when it first records. Without the
// library there is no such symbol and lockcore opens the spool itself. Both sides were built at different times
// perhaps, so the link carries the versions: a lockcore that does not know them records nothing of its own and leaves
// the counting to the library.
//
// Bump kShimLinkVersion when a member below, or the layout of StreamWriter or SpoolWriter, changes.
//
// Threads: each function is about the calling thread. Signals: all async-signal-safe. errno is left alone.
#ifndef PLANLOOP_LOCKCORE_WIRE_SHIM_LINK_H
#define PLANLOOP_LOCKCORE_WIRE_SHIM_LINK_H

#include <cstdint>

#include "lockcore/wire/stream_writer.h"

namespace planloop::wire {

// Stands in the library's file with the digit of kFormatVersion behind it, so that whoever is about to preload the
// library sees whether it writes what can be read here.
inline constexpr char kFormatMark[] = "planloop library of spool format ";

inline constexpr std::uint32_t kShimLinkVersion = 2;
inline constexpr char kShimLinkSymbol[] = "planloop_shim_link";

struct ShimLink {
    std::uint32_t version;         // kShimLinkVersion
    std::uint32_t format_version;  // kFormatVersion

    // The thread's stream, where it writes to and as whom; nullptr: the library does not record. Good until the
    // process forks.
    StreamWriter *(*stream)(SpoolWriter **spool, WriterIdentity *who) noexcept;

    // The number in the spool of the file that `fd` is open on, recorded if it is new; 0: not known. Tells the library
    // as well that this process takes POSIX locks on it, which the close of any of its descriptors drops.
    std::uint32_t (*posix_file)(int fd) noexcept;

    // In a ring: sees to it that the process is introduced in the chunk that the thread's next record goes into.
    void (*introduce)() noexcept;

    // While the thread's count is above zero its lock calls are lockcore's to record.
    void (*suppress)(int by) noexcept;
};

}  // namespace planloop::wire

extern "C" const planloop::wire::ShimLink *planloop_shim_link() noexcept;

#endif
