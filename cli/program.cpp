#include "cli/program.h"

#include <elf.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <link.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

namespace planloop::cli {
namespace {

using wire::NotTracedCause;

constexpr int kMostScripts = 5;               // the kernel gives up after as many interpreters of interpreters
constexpr std::size_t kFirstLineBytes = 256;  // what the kernel reads of a `#!` line (BINPRM_BUF_SIZE)

class FileToRead {
  public:
    explicit FileToRead(const std::string &path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {}
    ~FileToRead() {
        if (fd_ >= 0) ::close(fd_);
    }
    FileToRead(const FileToRead &) = delete;
    FileToRead &operator=(const FileToRead &) = delete;

    std::string read(std::size_t bytes, std::uint64_t offset) const {
        std::string out(bytes, '\0');
        const ssize_t got = fd_ < 0 ? -1 : ::pread(fd_, out.data(), bytes, static_cast<off_t>(offset));
        out.resize(got < 0 ? 0 : static_cast<std::size_t>(got));
        return out;
    }
    // False when the file ends before.
    template <class T>
    bool read_into(T &value, std::uint64_t offset) const {
        const std::string bytes = read(sizeof(T), offset);
        if (bytes.size() != sizeof(T)) return false;
        std::memcpy(&value, bytes.data(), sizeof(T));
        return true;
    }

  private:
    int fd_;
};

struct ElfKind {
    std::array<unsigned char, EI_NIDENT> ident{};
    std::uint16_t machine = 0;
    std::string loader;  // PT_INTERP; empty: linked statically

    bool same_architecture(const ElfKind &other) const {
        return ident[EI_CLASS] == other.ident[EI_CLASS] && ident[EI_DATA] == other.ident[EI_DATA] &&
               machine == other.machine;
    }
};

// Of this machine's word size and byte order; others differ in their first bytes already, and no more is needed.
std::optional<ElfKind> read_elf(const FileToRead &file) {
    ElfW(Ehdr) header{};
    if (!file.read_into(header, 0) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return std::nullopt;
    ElfKind kind;
    std::copy(std::begin(header.e_ident), std::end(header.e_ident), kind.ident.begin());
    kind.machine = header.e_machine;
    for (unsigned i = 0; i < header.e_phnum && header.e_phentsize == sizeof(ElfW(Phdr)); ++i) {
        ElfW(Phdr) segment{};
        if (!file.read_into(segment, header.e_phoff + std::uint64_t{i} * sizeof(segment))) break;
        if (segment.p_type != PT_INTERP) continue;
        kind.loader = file.read(std::min<std::size_t>(segment.p_filesz, 4096), segment.p_offset);
        kind.loader.resize(std::strlen(kind.loader.c_str()));
    }
    return kind;
}

// Whether the kernel would raise rights, upon which the loader takes no library from outside (ld.so(8),
// secure-execution mode). Set-id to the user who runs it changes nothing.
bool raises_rights(const std::string &path) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0) return false;
    struct statvfs mount {};
    if (::statvfs(path.c_str(), &mount) == 0 && (mount.f_flag & ST_NOSUID) != 0) return false;
    if (::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) return false;
    if ((status.st_mode & S_ISUID) != 0 && status.st_uid != ::getuid()) return true;
    constexpr mode_t kSetGroup = S_ISGID | S_IXGRP;
    if ((status.st_mode & kSetGroup) == kSetGroup && status.st_gid != ::getgid()) return true;
    return ::getuid() != 0 && ::getxattr(path.c_str(), "security.capability", nullptr, 0) > 0;
}

// The interpreter that a script's first line names; empty when it names none.
std::string interpreter_of(std::string_view first_line) {
    if (first_line.substr(0, 2) != "#!") return {};
    first_line = first_line.substr(0, first_line.find('\n')).substr(2);
    const std::size_t begin = first_line.find_first_not_of(" \t");
    if (begin == std::string_view::npos) return {};
    first_line.remove_prefix(begin);
    return std::string(first_line.substr(0, first_line.find_first_of(" \t\r")));
}

std::optional<Obstacle> obstacle_of_elf(const std::string &path, const ElfKind &program) {
    const std::optional<ElfKind> own = read_elf(FileToRead("/proc/self/exe"));
    if (own && !own->same_architecture(program)) {
        return Obstacle{NotTracedCause::other_architecture, path, "it is built for another architecture", true};
    }
    if (program.loader.empty()) {
        return Obstacle{NotTracedCause::static_binary, path,
                        "it is linked statically, so no library can be preloaded into it", false};
    }
    if (own && own->loader != program.loader && program.loader.find("musl") != std::string::npos) {
        return Obstacle{NotTracedCause::other_architecture, path,
                        fmt::format("its C library is another one ({})", program.loader), true};
    }
    if (raises_rights(path)) {
        return Obstacle{NotTracedCause::setuid, path, "it is setuid, so the loader refuses to preload", false};
    }
    return std::nullopt;
}

}  // namespace

std::string find_program(const std::string &name) {
    if (name.find('/') != std::string::npos) return ::access(name.c_str(), F_OK) == 0 ? name : std::string();
    if (name.empty()) return {};
    const char *variable = ::getenv("PATH");
    std::string_view folders = variable == nullptr ? "/bin:/usr/bin" : variable;
    std::string seen;  // exists, but may not be run: execvp(3) looks on for a better one
    for (;;) {
        const std::string_view folder = folders.substr(0, folders.find(':'));
        std::string path = folder.empty() ? name : fmt::format("{}/{}", folder, name);
        struct stat status {};
        if (::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode)) {
            if (::access(path.c_str(), X_OK) == 0) return path;
            if (seen.empty()) seen = path;
        }
        if (folder.size() == folders.size()) return seen;
        folders.remove_prefix(folder.size() + 1);
    }
}

std::optional<Obstacle> obstacle_to_tracing(const std::string &path) {
    std::string at = path;
    for (int depth = 0; depth < kMostScripts; ++depth) {
        const FileToRead file(at);
        if (const std::optional<ElfKind> elf = read_elf(file)) return obstacle_of_elf(at, *elf);
        const std::string first_line = file.read(kFirstLineBytes, 0);
        if (first_line.empty()) return std::nullopt;
        at = interpreter_of(first_line);
        if (at.empty()) at = "/bin/sh";  // what execvp(3) does with a text that names no interpreter
    }
    return std::nullopt;
}

std::string exec_failure_text(const std::string &name, int error) {
    if (error == ENOENT && name.find('/') == std::string::npos) return fmt::format("{}: command not found", name);
    struct stat status {};
    if (error == EACCES && ::stat(name.c_str(), &status) == 0 && S_ISDIR(status.st_mode)) {
        return fmt::format("{}: {}", name, std::strerror(EISDIR));
    }
    return fmt::format("{}: {}", name, std::strerror(error));
}

int exec_failure_status(int error) {
    return error == ENOENT ? 127 : 126;
}

}  // namespace planloop::cli
