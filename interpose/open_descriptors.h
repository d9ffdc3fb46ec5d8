// Which descriptors of a process are open. Part of descriptors.h. Allocates nothing, opens nothing but a folder of
// /proc.
#ifndef PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H
#define PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H

#include <fcntl.h>
#include <poll.h>

#include "interpose/proc_files.h"
#include "lockcore/wire/spool_writer.h"

namespace planloop::shim {

// Bit i: first + i is open. One system call, and none that opens anything: a program may be out of descriptors.
inline std::uint64_t open_among_64(int first) noexcept {
    constexpr int kCount = 64;
    pollfd descriptors[kCount];
    for (int i = 0; i < kCount; ++i) descriptors[i] = {first + i, 0, 0};
    constexpr timespec kNoWait{};
    // Refused by a limit on descriptors that is smaller than the number asked for.
    const bool polled = wire::raw_syscall(SYS_ppoll, descriptors, kCount, &kNoWait, nullptr, 0) >= 0;
    std::uint64_t open = 0;
    for (int i = 0; i < kCount; ++i) {
        const bool is_open =
            polled ? (descriptors[i].revents & POLLNVAL) == 0 : wire::raw_syscall(SYS_fcntl, first + i, F_GETFD) >= 0;
        if (is_open) open |= std::uint64_t{1} << i;
    }
    return open;
}

// False when the kernel's table of descriptors has no room for `first`, a multiple of 64, so that none from there on is
// open; `first` is kMostAsked at the most. select(2) under BUGS: it looks at, and answers for, no number beyond that
// table. (/proc/self/fd would tell exactly which are open, at a twelfth of the time that a process takes to start.)
inline constexpr int kMostAsked = 1024;
inline bool table_reaches(int first) noexcept {
    const int word = first / 64;
    std::uint64_t asked[kMostAsked / 64 + 1] = {};
    asked[word] = ~std::uint64_t{0};
    constexpr timespec kNoWait{};
    const long found = wire::raw_syscall(SYS_pselect6, first + 64, asked, nullptr, nullptr, &kNoWait, nullptr);
    return found != 0 || asked[word] != ~std::uint64_t{0};
}

// Whether any descriptor from `first`, a multiple of 64, on is open and `matters(fd)`; true also when there are too
// many to ask.
template <class Matters>
bool any_open_from(int first, Matters matters) noexcept {
    for (; table_reaches(first); first += 64) {
        if (first >= kMostAsked) return true;
        for (std::uint64_t bits = open_among_64(first); bits != 0; bits &= bits - 1) {
            if (matters(first + __builtin_ctzll(bits))) return true;
        }
    }
    return false;
}

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
