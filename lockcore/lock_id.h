// The name of a file lock in JSON and in reports: `flock:fe:01:1234` is family, device (major and minor, hex) and inode
// (decimal), as /proc/locks writes them. Threads: safe.
#ifndef PLANLOOP_LOCKCORE_LOCK_ID_H
#define PLANLOOP_LOCKCORE_LOCK_ID_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lockcore/wire/record.h"

namespace planloop {

struct LockId {
    wire::Family family{};
    std::uint64_t device = 0;  // st_dev
    std::uint64_t inode = 0;
};

std::string format_lock_id(wire::Family family, std::uint64_t device, std::uint64_t inode);
std::optional<LockId> parse_lock_id(std::string_view text);
std::optional<wire::Family> family_named(std::string_view name);

}  // namespace planloop

#endif
