#include "cli/program.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

#include "lockcore/wire/executable.h"

namespace planloop::cli {
namespace {

using wire::NotTracedCause;

std::string reason_of(const wire::PreloadObstacle &obstacle) {
    switch (obstacle.cause) {
        case NotTracedCause::static_binary:
            return "it is linked statically, so no library can be preloaded into it";
        case NotTracedCause::go_without_libc:
            return "it is a Go program without libc, so no library can be preloaded into it";
        case NotTracedCause::setuid:
            return "it is setuid, setgid or has file capabilities, so the loader refuses to preload";
        default:
            return obstacle.foreign_libc ? "its C library is musl, not the one that the recording library is made for"
                                         : "it is built for another architecture";
    }
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
    const wire::PreloadObstacle obstacle = wire::obstacle_to_preload(path.c_str());
    if (!obstacle.found) return std::nullopt;
    return Obstacle{obstacle.cause, obstacle.path, reason_of(obstacle),
                    obstacle.cause == NotTracedCause::other_architecture};
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
