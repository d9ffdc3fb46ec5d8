// The git repository that planloop is called in, asked by the git command; without git or a repository there is none.
//
// Errors: nothing found. Threads: no state; starts a process and waits for it.
#ifndef PLANLOOP_CLI_GIT_REPOSITORY_H
#define PLANLOOP_CLI_GIT_REPOSITORY_H

#include <optional>
#include <string>

namespace planloop::cli {

struct GitRepository {
    std::string path;    // of its work tree
    std::string commit;  // 40 hex digits; empty: nothing was committed yet
};

std::optional<GitRepository> git_repository_here();

// A lightweight tag on the present commit; false when git refuses.
bool git_tag(const GitRepository &repository, const std::string &name);

}  // namespace planloop::cli

#endif
