// What tells a file from an earlier one with the same device and inode number: inode numbers are given out again as
// soon as a file is unlinked. Every writer of FileBody records must ask in the same way, or one file becomes two.
//
// Async-signal-safe, thread-safe, no errno.
#ifndef PLANLOOP_LOCKCORE_WIRE_FILE_IDENTITY_H
#define PLANLOOP_LOCKCORE_WIRE_FILE_IDENTITY_H

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cstdint>

#include "lockcore/wire/raw_syscall.h"

namespace planloop::wire {

// FileBody::generation of the file that `fd` is open on, whose st_mode is `mode`; 0: the file system does not tell.
inline std::uint64_t file_generation(int fd, std::uint32_t mode) noexcept {
    if (S_ISREG(mode) || S_ISDIR(mode)) {  // on a device the same ioctl number could mean anything
        int version = 0;
        if (raw_syscall(SYS_ioctl, fd, FS_IOC_GETVERSION, &version) == 0) return static_cast<std::uint32_t>(version);
    }
    struct statx status {};
    if (raw_syscall(SYS_statx, fd, "", AT_EMPTY_PATH, STATX_BTIME, &status) == 0 &&
        (status.stx_mask & STATX_BTIME) != 0) {
        return static_cast<std::uint64_t>(status.stx_btime.tv_sec) * 1'000'000'000u + status.stx_btime.tv_nsec;
    }
    return 0;
}

}  // namespace planloop::wire

#endif
