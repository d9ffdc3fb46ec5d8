// Lists a process's open descriptors from /proc/PID/fd without allocating. Part of descriptors.h.
#ifndef PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H
#define PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H

#include <fcntl.h>

#include "interpose/proc_files.h"
#include "lockcore/wire/spool_writer.h"

namespace planloop::shim {

template <class Visit>
bool for_each_descriptor_in(const char *path, Visit visit) noexcept {
    struct Entry {  // linux_dirent64, getdents64(2)
        std::uint64_t inode;
        std::int64_t next;
        unsigned short bytes;
        unsigned char type;
        char name[1];
    };
    const int folder = wire::raw_open(path, O_RDONLY | O_DIRECTORY);
    if (folder < 0) return false;
    alignas(8) char buffer[2048];
    for (;;) {
        const long got = wire::raw_syscall(SYS_getdents64, folder, buffer, sizeof(buffer));
        if (got <= 0) break;
        for (long at = 0; at < got;) {
            const auto *entry = reinterpret_cast<const Entry *>(buffer + at);
            at += entry->bytes;
            int fd = 0;
            const char *digit = entry->name;
            if (*digit < '0' || *digit > '9') continue;
            for (; *digit >= '0' && *digit <= '9'; ++digit) fd = fd * 10 + (*digit - '0');
            if (fd != folder) visit(fd);
        }
    }
    wire::raw_close(folder);
    return true;
}

template <class Visit>
bool for_each_open_descriptor(Visit visit) noexcept {
    return for_each_descriptor_in("/proc/self/fd", visit);
}
template <class Visit>
bool for_each_open_descriptor(std::int32_t pid, Visit visit) noexcept {
    return for_each_descriptor_in(ProcPath(pid, "fd").c_str(), visit);
}

}  // namespace planloop::shim

#endif
