#include "bench/measure.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <spawn.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string_view>

#include "lockcore/wire/spool_format.h"

namespace planloop::bench {
namespace {

double now_ns() {
    timespec now{};
    clock_gettime(CLOCK_MONOTONIC, &now);
    return static_cast<double>(now.tv_sec) * 1e9 + static_cast<double>(now.tv_nsec);
}

std::vector<char *> pointers(std::vector<std::string> &texts) {
    std::vector<char *> out;
    out.reserve(texts.size() + 1);
    for (std::string &text : texts) out.push_back(text.data());
    out.push_back(nullptr);
    return out;
}

// A process that is ready to be started many times.
struct Command {
    std::vector<std::string> arguments, environment;
    std::vector<char *> argv, envp;

    Command(std::vector<std::string> arguments_given, std::vector<std::string> environment_given)
        : arguments(std::move(arguments_given)),
          environment(std::move(environment_given)),
          argv(pointers(arguments)),
          envp(pointers(environment)) {}
    Command(const Command &) = delete;
    Command &operator=(const Command &) = delete;

    // 0, or why it did not end with status 0.
    Result<void> run(const posix_spawn_file_actions_t *actions) {
        pid_t child = 0;
        const int error = posix_spawnp(&child, argv[0], actions, nullptr, argv.data(), envp.data());
        if (error != 0) return Error{fmt::format("{}: cannot be started: errno {}", argv[0], error)};
        int status = 0;
        if (waitpid(child, &status, 0) != child || status != 0) {
            return Error{fmt::format("{}: ended with wait status {}", fmt::join(arguments, " "), status)};
        }
        return {};
    }
};

// Standard output into a file of the measurement's folder, which is also where the program runs.
class Redirection {
  public:
    Redirection(const std::string &folder, const std::string &output) {
        posix_spawn_file_actions_init(&actions_);
        posix_spawn_file_actions_addchdir_np(&actions_, folder.c_str());
        posix_spawn_file_actions_addopen(&actions_, STDOUT_FILENO, output.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    }
    ~Redirection() { posix_spawn_file_actions_destroy(&actions_); }
    Redirection(const Redirection &) = delete;
    Redirection &operator=(const Redirection &) = delete;
    const posix_spawn_file_actions_t *get() const { return &actions_; }

  private:
    posix_spawn_file_actions_t actions_{};
};

std::string read_small(const std::string &path) {
    std::string text(256, '\0');
    const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const ssize_t got = fd < 0 ? 0 : read(fd, text.data(), text.size());
    if (fd >= 0) close(fd);
    text.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return text;
}

}  // namespace

double median(std::vector<double> values) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const std::size_t middle = values.size() / 2;
    return values.size() % 2 != 0 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

bool strace_works() {
    Command command({"strace", "-f", "-qq", "-e", "trace=flock", "-o", "/dev/null", "true"}, {"PATH=/usr/bin:/bin"});
    return static_cast<bool>(command.run(nullptr));
}

// Ours but for the shim's own variables, whatever this program was started with.
std::vector<std::string> Bench::environment(With with) const {
    std::vector<std::string> out;
    for (char **entry = environ; *entry != nullptr; ++entry) {
        const std::string_view text = *entry;
        if (!text.starts_with("LD_PRELOAD=") && !text.starts_with("PLANLOOP_")) out.emplace_back(text);
    }
    if (with == With::ring) out.emplace_back("PLANLOOP_RING=1M");
    if (with == With::shim || with == With::ring) {
        out.push_back("LD_PRELOAD=" + shim_);
        out.emplace_back("PLANLOOP_SESSION=bench");
        out.push_back("PLANLOOP_HOME=" + folder_ + "/home");
    }
    return out;
}

// Reads the spool's header and removes the session.
Recorded Bench::take_spool() const {
    Recorded out;
    std::error_code error;
    const std::string home = folder_ + "/home";
    const std::string spools = home + "/sessions/bench/logs/spool";
    for (const auto &entry : std::filesystem::directory_iterator(spools, error)) {
        const int fd = open(entry.path().c_str(), O_RDONLY | O_CLOEXEC);
        if (fd < 0) continue;
        std::uint64_t next = 0;
        std::uint64_t dropped[static_cast<std::size_t>(wire::Drop::count)] = {};
        if (pread(fd, &next, sizeof(next), offsetof(wire::SpoolHeader, next_offset)) == sizeof(next) &&
            pread(fd, dropped, sizeof(dropped), offsetof(wire::SpoolHeader, dropped)) == sizeof(dropped)) {
            out.spool = true;
            out.bytes += next - wire::kPageBytes;
            for (const std::uint64_t count : dropped) out.dropped += count;
        }
        close(fd);
    }
    std::filesystem::remove_all(home, error);
    return out;
}

Result<Measured> Bench::run(const std::string &name, long iterations, With with) const {
    std::vector<std::string> arguments;
    if (with == With::strace || with == With::strace_filtered) {
        arguments = {"strace", "-f", "-qq", "-e", "trace=flock,fcntl", "-o", "/dev/null"};
        if (with == With::strace_filtered) arguments.emplace_back("--seccomp-bpf");
    }
    arguments.insert(arguments.end(), {workload_, name, std::to_string(iterations)});
    const std::string output = folder_ + "/output";
    const Redirection redirection(folder_, output);
    Command command(std::move(arguments), environment(with));
    if (auto done = command.run(redirection.get()); !done) return done.error();
    Measured measured;
    const std::string told = read_small(output);
    char *rest = nullptr;
    measured.own_ns = std::strtod(told.c_str(), &rest);
    measured.whole_ns = std::strtod(rest, nullptr);
    if (measured.own_ns <= 0 || measured.whole_ns <= 0) return Error{workload_ + " " + name + ": told no time"};
    measured.recorded = take_spool();
    return measured;
}

Result<Bench::Starts> Bench::start_up(int count) const {
    Command bare({"/bin/true"}, environment(With::nothing));
    Command with_shim({"/bin/true"}, environment(With::shim));
    std::vector<double> bare_ns, shim_ns;
    for (int i = 0; i < 2 * count; ++i) {
        // Bare, shim, shim, bare: neither always comes first.
        const bool shim = i % 4 == 1 || i % 4 == 2;
        const double begin = now_ns();
        if (auto done = (shim ? with_shim : bare).run(nullptr); !done) return done.error();
        (shim ? shim_ns : bare_ns).push_back(now_ns() - begin);
    }
    if (take_spool().spool) return Error{"a program that takes no lock made a spool"};
    return Starts{median(std::move(bare_ns)), median(std::move(shim_ns))};
}

}  // namespace planloop::bench
