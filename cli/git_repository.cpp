#include "cli/git_repository.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

namespace planloop::cli {
namespace {

// What it printed, without the last newline, if it succeeded.
std::optional<std::string> output_of(std::vector<std::string> words) {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return std::nullopt;
    posix_spawn_file_actions_t actions{};
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    ::posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
    ::posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
    std::vector<char *> arguments;
    arguments.reserve(words.size() + 1);
    for (std::string &word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    pid_t child = 0;
    const int error = ::posix_spawnp(&child, arguments[0], &actions, nullptr, arguments.data(), environ);
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(ends[1]);
    std::string output;
    char piece[4096];
    ssize_t got = error == 0 ? 1 : 0;
    while (got > 0 || (got < 0 && errno == EINTR)) {
        got = ::read(ends[0], piece, sizeof(piece));
        if (got > 0) output.append(piece, static_cast<std::size_t>(got));
    }
    ::close(ends[0]);
    int status = 0;
    if (error != 0) return std::nullopt;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
    while (!output.empty() && output.back() == '\n') output.pop_back();
    return output;
}

}  // namespace

std::optional<GitRepository> git_repository_here() {
    auto path = output_of({"git", "rev-parse", "--show-toplevel"});
    if (!path || path->empty()) return std::nullopt;
    return GitRepository{*path, output_of({"git", "rev-parse", "--verify", "--quiet", "HEAD"}).value_or("")};
}

bool git_tag(const GitRepository &repository, const std::string &name) {
    return output_of({"git", "-C", repository.path, "tag", name}).has_value();
}

}  // namespace planloop::cli
