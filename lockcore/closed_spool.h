// Closing a spool: nobody writes into it any more, so that it can be compressed or deleted. A program that records
// later makes a new one.
//
// A spool may be closed only when no process has it mapped, since every one that has may write at any time. So closing
// says in the spool's header that it is wanted, looks into /proc/PID/maps of all processes, and makes it final if
// nobody took it back meanwhile (wire::Closing); then the file gets a name of its own at once:
// `locks-v2-<boot>-<when>.spool`. The list of what has been exported from it (`logs/.<name>.exported`) goes by its new
// name too.
//
// Errors: one line. Threads: safe. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_CLOSED_SPOOL_H
#define PLANLOOP_LOCKCORE_CLOSED_SPOOL_H

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>

#include "lockcore/result.h"

namespace planloop {

// Device and inode of every spool that a process other than this one has mapped now.
using MappedFiles = std::set<std::pair<std::uint64_t, std::uint64_t>>;
MappedFiles mapped_spools();

// Whether some process may still write into the spool, or a `dev run` watches over it.
bool spool_in_use(const std::string &path, const MappedFiles &mapped);

// The path of the closed spool; empty: it is in use.
Result<std::string> close_spool(const std::string &path);

// Puts a compressed file in a closed spool's place.
struct Compressed {
    std::uint64_t before = 0, after = 0;  // bytes on disk
};
Result<Compressed> compress_closed_spool(const std::string &path);

// The name that a spool had while it was written, of whatever has become of it: `locks-v2-<boot>.spool`.
std::string name_while_written(std::string_view name);

}  // namespace planloop

#endif
