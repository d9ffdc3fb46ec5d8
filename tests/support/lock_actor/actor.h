// The parts of lock_actor: commands by name, and what they answer.
#ifndef PLANLOOP_TESTS_SUPPORT_LOCK_ACTOR_ACTOR_H
#define PLANLOOP_TESTS_SUPPORT_LOCK_ACTOR_ACTOR_H

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lock_actor {

// The connection is kept out of the way, so that the descriptors of a test are small and predictable.
constexpr int kLowestControlFd = 900;

struct Answer {
    long result = -1;
    int error = 0;
    std::int64_t before = 0;  // CLOCK_MONOTONIC, ns
    std::int64_t after = 0;
};

using Words = std::vector<std::string>;  // of a line: the command, then its arguments

struct Command {
    const char *name;
    Answer (*run)(const Words &);
};
const std::vector<Command> &lock_commands();
const std::vector<Command> &descriptor_commands();
const std::vector<Command> &process_commands();

std::int64_t now_ns();
long number(const Words &words, std::size_t at);  // 0 when there is none
int fd_of(const Words &words, std::size_t at);
bool has(const Words &words, const char *word);

// The socket that the test listens on.
const std::string &socket_path();
// A connection of the calling thread's own, on which it has said hello.
int connect_to_test();
// Obeys until the test closes the connection.
void serve(int control);

template <class Call>
Answer measured(Call call) {
    Answer answer;
    answer.before = now_ns();
    errno = 0;
    answer.result = call();
    answer.error = answer.result == -1 ? errno : 0;
    answer.after = now_ns();
    return answer;
}

}  // namespace lock_actor

#endif
