// Whether a preloaded library can be in a program at all, told from its file as the kernel and the loader will read it.
//
// Used by the command line before it starts a program and by the shim before it execs one. Async-signal-safe, no errno,
// no allocation; takes some four kilobytes of stack. What cannot be read is no obstacle: the kernel has the last word.
#ifndef PLANLOOP_LOCKCORE_WIRE_EXECUTABLE_H
#define PLANLOOP_LOCKCORE_WIRE_EXECUTABLE_H

#include <elf.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lockcore/wire/raw_syscall.h"
#include "lockcore/wire/record.h"

namespace planloop::wire {

struct PreloadObstacle {
    bool found = false;
    NotTracedCause cause{};
    bool foreign_libc = false;  // cause other_architecture, of this architecture but for another C library
    char path[512] = {};        // of the program that the kernel would load: for a script its interpreter; no links
};

namespace executable_detail {

inline constexpr unsigned char kOwnClass = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
#if defined(__x86_64__)
inline constexpr unsigned kOwnMachine = EM_X86_64;
#elif defined(__aarch64__)
inline constexpr unsigned kOwnMachine = EM_AARCH64;
#endif

template <class T>
bool read_at(int fd, T &value, std::uint64_t offset) noexcept {
    return raw_syscall(SYS_pread64, fd, &value, sizeof(value), offset) == static_cast<long>(sizeof(value));
}

// Whether the kernel would raise rights, upon which the loader takes no library from outside (ld.so(8),
// secure-execution mode). Set-id to the user who runs it changes nothing.
inline bool raises_rights(int fd) noexcept {
    struct stat status {};
    struct statfs mount {};
    constexpr long kMountedNoSuid = 2;  // ST_NOSUID, statfs(2)
    if (raw_syscall(SYS_fstat, fd, &status) != 0) return false;
    if (raw_syscall(SYS_fstatfs, fd, &mount) == 0 && (mount.f_flags & kMountedNoSuid) != 0) return false;
    if (raw_syscall(SYS_prctl, PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) return false;
    const auto uid = static_cast<uid_t>(raw_syscall(SYS_getuid));
    if ((status.st_mode & S_ISUID) != 0 && status.st_uid != uid) return true;
    constexpr mode_t kSetGroup = S_ISGID | S_IXGRP;
    const auto gid = static_cast<gid_t>(raw_syscall(SYS_getgid));
    if ((status.st_mode & kSetGroup) == kSetGroup && status.st_gid != gid) return true;
    return uid != 0 && raw_syscall(SYS_fgetxattr, fd, "security.capability", nullptr, 0) > 0;
}

// Whether a PT_NOTE segment is the one that Go's linker writes: a program of Go without a loader is one without libc.
inline bool is_go_note(int fd, const Elf64_Phdr &segment) noexcept {
    struct {
        Elf64_Nhdr header;
        char name[4];
    } note{};
    constexpr unsigned kGoBuildId = 4;
    return read_at(fd, note, segment.p_offset) && note.header.n_namesz == sizeof(note.name) &&
           note.header.n_type == kGoBuildId && std::memcmp(note.name, "Go\0", sizeof(note.name)) == 0;
}

inline PreloadObstacle inspect_elf(int fd, const unsigned char (&ident)[EI_NIDENT]) noexcept {
    PreloadObstacle obstacle;
    Elf64_Ehdr header{};
    if (ident[EI_CLASS] != kOwnClass || !read_at(fd, header, 0) || header.e_machine != kOwnMachine) {
        obstacle.found = true;
        obstacle.cause = NotTracedCause::other_architecture;
        return obstacle;
    }
    constexpr std::size_t kMostSegments = 32;  // what is behind them is no loader's name
    Elf64_Phdr segments[kMostSegments];
    std::size_t count = header.e_phentsize == sizeof(Elf64_Phdr) ? header.e_phnum : 0;
    if (count > kMostSegments) count = kMostSegments;
    const long got = raw_syscall(SYS_pread64, fd, segments, count * sizeof(Elf64_Phdr), header.e_phoff);
    count = got > 0 ? static_cast<std::size_t>(got) / sizeof(Elf64_Phdr) : 0;
    char loader[128] = {};
    bool has_loader = false;
    bool go = false;
    for (std::size_t i = 0; i < count; ++i) {
        if (segments[i].p_type != PT_INTERP) continue;
        has_loader = true;
        raw_syscall(SYS_pread64, fd, loader, sizeof(loader) - 1, segments[i].p_offset);
    }
    for (std::size_t i = 0; i < count && !has_loader && !go; ++i) {
        go = segments[i].p_type == PT_NOTE && is_go_note(fd, segments[i]);
    }
    obstacle.foreign_libc = has_loader && std::strstr(loader, "musl") != nullptr;
    if (!has_loader) obstacle.cause = go ? NotTracedCause::go_without_libc : NotTracedCause::static_binary;
    if (obstacle.foreign_libc) obstacle.cause = NotTracedCause::other_architecture;
    obstacle.found = !has_loader || obstacle.foreign_libc;
    if (!obstacle.found && raises_rights(fd)) {
        obstacle.found = true;
        obstacle.cause = NotTracedCause::setuid;
    }
    return obstacle;
}

// Where `fd` is, as /proc/PID/exe will tell it of the process that runs it; `path` stays when that is not to be known.
inline void resolve_path(int fd, char (&path)[512]) noexcept {
    char link[32] = "/proc/self/fd/";
    std::size_t end = std::strlen(link);
    int unit = 1;
    while (fd / unit >= 10) unit *= 10;
    for (; unit > 0; unit /= 10) link[end++] = static_cast<char>('0' + fd / unit % 10);
    char target[512];
    const long length = raw_syscall(SYS_readlinkat, AT_FDCWD, link, target, sizeof(target));
    if (length <= 0 || length == static_cast<long>(sizeof(target)) || target[0] != '/') return;
    std::memcpy(path, target, static_cast<std::size_t>(length));
    path[length] = '\0';
}

// The interpreter that a script's first line names into `path`; what names none is run by /bin/sh, as execvp(3) does.
inline void take_interpreter(const char *first_line, char (&path)[512]) noexcept {
    std::size_t length = 0;
    if (first_line[0] == '#' && first_line[1] == '!') {
        const char *at = first_line + 2;
        while (*at == ' ' || *at == '\t') ++at;
        while (at[length] != '\0' && std::strchr(" \t\r\n", at[length]) == nullptr) ++length;
        std::memcpy(path, at, length);
    }
    path[length] = '\0';
    if (length == 0) std::memcpy(path, "/bin/sh", sizeof("/bin/sh"));
}

}  // namespace executable_detail

// Why no library can be preloaded into the program at `path`, if so. Follows `#!` lines as the kernel does.
inline PreloadObstacle obstacle_to_preload(const char *path) noexcept {
    constexpr int kMostScripts = 5;               // the kernel gives up after as many interpreters of interpreters
    constexpr std::size_t kFirstLineBytes = 256;  // what the kernel reads of a `#!` line (BINPRM_BUF_SIZE)
    char at[512] = {};
    if (std::strlen(path) >= sizeof(at)) return {};
    std::memcpy(at, path, std::strlen(path) + 1);
    for (int depth = 0; depth < kMostScripts; ++depth) {
        const auto fd = static_cast<int>(raw_syscall(SYS_openat, AT_FDCWD, at, O_RDONLY | O_CLOEXEC | O_NONBLOCK, 0));
        if (fd < 0) return {};
        char first_line[kFirstLineBytes + 1] = {};
        const long got = raw_syscall(SYS_pread64, fd, first_line, kFirstLineBytes, 0);
        unsigned char ident[EI_NIDENT] = {};
        std::memcpy(ident, first_line, sizeof(ident));
        const bool elf = got >= static_cast<long>(sizeof(ident)) && std::memcmp(ident, ELFMAG, SELFMAG) == 0;
        PreloadObstacle obstacle;
        if (elf) obstacle = executable_detail::inspect_elf(fd, ident);
        if (obstacle.found) executable_detail::resolve_path(fd, at);
        raw_syscall(SYS_close, fd);
        if (elf || got <= 0) {
            std::memcpy(obstacle.path, at, sizeof(at));
            return obstacle;
        }
        executable_detail::take_interpreter(first_line, at);
    }
    return {};
}

}  // namespace planloop::wire

#endif
