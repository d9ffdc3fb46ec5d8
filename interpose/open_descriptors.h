// Which descriptors of a process are open. Part of descriptors.h. Allocates nothing, opens nothing but a folder of
// /proc.
#ifndef PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H
#define PLANLOOP_INTERPOSE_OPEN_DESCRIPTORS_H

#include <fcntl.h>
#include <poll.h>

#include "interpose/proc_files.h"
#include "lockcore/wire/spool_writer.h"

namespace planloop::shim {

// Bit i % 64 of word i / 64: first + i is open. One system call, and none that opens anything: a program may be out of
// descriptors.
template <std::size_t kWords>
struct OpenBits {
    std::uint64_t words[kWords] = {};
};
template <std::size_t kWords>
OpenBits<kWords> open_from(int first) noexcept {
    constexpr auto kCount = static_cast<int>(64 * kWords);
    pollfd descriptors[64 * kWords];
    for (int i = 0; i < kCount; ++i) descriptors[i] = {first + i, 0, 0};
    constexpr timespec kNoWait{};
    // Refused by a limit on descriptors that is smaller than the number asked for.
    const bool polled = wire::raw_syscall(SYS_ppoll, descriptors, kCount, &kNoWait, nullptr, 0) >= 0;
    OpenBits<kWords> open;
    for (int i = 0; i < kCount; ++i) {
        const bool is_open =
            polled ? (descriptors[i].revents & POLLNVAL) == 0 : wire::raw_syscall(SYS_fcntl, first + i, F_GETFD) >= 0;
        open.words[i / 64] |= static_cast<std::uint64_t>(is_open) << i % 64;
    }
    return open;
}
inline std::uint64_t open_among_64(int first) noexcept {
    return open_from<1>(first).words[0];
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

struct OpenDescriptors {
    std::uint64_t low;  // bit i: i is open
    bool high_matter;   // from 64 on one is open that matters, or there are too many to ask
};

// A table that reaches beyond 64 has room for 256 on most kernels: so many are asked at once.
template <class Matters>
OpenDescriptors open_descriptors(Matters matters) noexcept {
    if (!table_reaches(64)) return {open_among_64(0), false};
    constexpr std::size_t kWords = 4;
    OpenBits<kWords> open = open_from<kWords>(0);
    const std::uint64_t low = open.words[0];
    open.words[0] = 0;
    for (int first = 0;;) {
        for (std::size_t i = 0; i < kWords; ++i) {
            const int word = first + 64 * static_cast<int>(i);
            for (std::uint64_t bits = open.words[i]; bits != 0; bits &= bits - 1) {
                if (matters(word + __builtin_ctzll(bits))) return {low, true};
            }
        }
        first += 64 * static_cast<int>(kWords);
        if (!table_reaches(first)) return {low, false};
        if (first == kMostAsked) return {low, true};
        open = open_from<kWords>(first);
    }
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
