// planloop dev doctor: says before a run whether a program can be traced, and whether a lock file lies where locks
// follow other rules. It looks at files only and starts nothing.

#include <fmt/format.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <sstream>
#include <vector>

#include "cli/command.h"
#include "cli/output.h"
#include "cli/preload_library.h"
#include "cli/program.h"
#include "lockcore/file_system_rules.h"

namespace planloop::cli {
namespace {

constexpr int kExitUntraceable = 1;

// One program that would run: CMD itself, or what its first line names.
struct Subject {
    std::string path;
    std::string why_not;  // empty: it can be traced
};

// The words of a `#!` line; none: no script.
std::vector<std::string> interpreter_of(const std::string &path) {
    constexpr std::size_t kFirstLineBytes = 256;  // what the kernel reads of it (BINPRM_BUF_SIZE)
    std::string line(kFirstLineBytes, '\0');
    std::ifstream file(path, std::ios::binary);
    file.read(line.data(), static_cast<std::streamsize>(line.size()));
    line.resize(static_cast<std::size_t>(file.gcount()));
    if (line.rfind("#!", 0) != 0) return {};
    std::istringstream words(line.substr(2, line.find('\n') - 2));
    std::vector<std::string> found;
    for (std::string word; words >> word;) found.push_back(word);
    return found;
}

// `#!/usr/bin/env -S NAME=VALUE python3 -u`: what env(1) looks for.
std::string program_of_env(const std::vector<std::string> &words) {
    for (std::size_t i = 1; i < words.size(); ++i) {
        if (words[i][0] != '-' && words[i].find('=') == std::string::npos) return words[i];
    }
    return {};
}

// CMD and, where it is a script, what runs it, as the kernel and env(1) will find it.
Result<std::vector<Subject>> subjects_of(const std::string &name) {
    std::vector<Subject> subjects;
    std::string next = name;
    constexpr std::size_t kMostScripts = 5;  // as many interpreters of interpreters as the kernel follows
    for (std::size_t depth = 0; depth <= kMostScripts && !next.empty(); ++depth) {
        const std::string path = find_program(next);
        if (path.empty()) {
            if (depth == 0) return Error{exec_failure_text(name, ENOENT)};
            subjects.push_back({next, "it is not there"});
            break;
        }
        Subject subject{path, {}};
        if (std::filesystem::is_directory(path)) {
            subject.why_not = "it is a folder";
        } else if (::access(path.c_str(), X_OK) != 0) {
            subject.why_not = "it may not be executed";
        }
        const std::vector<std::string> words = interpreter_of(path);
        next.clear();
        if (subject.why_not.empty() && words.empty()) {
            if (const auto obstacle = obstacle_to_tracing(path)) subject.why_not = obstacle->reason;
        } else if (subject.why_not.empty()) {
            const bool by_env = std::filesystem::path(words[0]).filename() == "env";
            next = by_env ? program_of_env(words) : words[0];
        }
        subjects.push_back(std::move(subject));
    }
    return subjects;
}

struct LockPlace {
    std::string path;
    FileSystemRules rules;
};

Result<LockPlace> place_of_lock(const std::string &path) {
    struct statfs mount {};
    std::error_code failed;
    std::string at = path;
    if (::statfs(at.c_str(), &mount) != 0) {  // it is yet to be made
        at = std::filesystem::path(std::filesystem::absolute(path, failed)).parent_path().string();
        if (::statfs(at.c_str(), &mount) != 0) return Error{fmt::format("{}: {}", path, std::strerror(errno))};
    }
    return LockPlace{path, rules_of_file_system(static_cast<unsigned long>(mount.f_type))};
}

std::string text_of(const std::vector<Subject> &subjects, const std::optional<LockPlace> &lock) {
    std::string out;
    for (std::size_t i = 0; i < subjects.size(); ++i) {
        const Subject &subject = subjects[i];
        const std::string_view role = i == 0 ? "" : ", which runs it,";
        if (!subject.why_not.empty()) {
            out += fmt::format("{}{} cannot be traced: {}\n", subject.path, role, subject.why_not);
        } else if (i + 1 < subjects.size()) {
            out += fmt::format("{} is a script\n", subject.path);
        } else {
            out += fmt::format("{}{} can be traced\n", subject.path, role);
        }
    }
    if (lock) {
        const std::string_view name = lock->rules.name.empty() ? "an unknown file system" : lock->rules.name;
        out += fmt::format("{} is on {}: {}\n", lock->path, name, lock->rules.rules);
    }
    return out;
}

std::string json_of(const std::vector<Subject> &subjects, const std::optional<LockPlace> &lock) {
    nlohmann::ordered_json out{{"schema", "planloop.doctor/1"}};
    if (!subjects.empty()) {
        out["programs"] = nlohmann::ordered_json::array();
        for (const Subject &subject : subjects) {
            nlohmann::ordered_json row{{"path", subject.path}, {"traceable", subject.why_not.empty()}};
            if (!subject.why_not.empty()) row["reason"] = subject.why_not;
            out["programs"].push_back(std::move(row));
        }
    }
    if (lock) {
        out["lock"] = {{"path", lock->path},
                       {"file_system", lock->rules.name},
                       {"rules_changed", lock->rules.changed},
                       {"rules", lock->rules.rules}};
    }
    return out.dump(2, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

}  // namespace

Result<int> run_dev_doctor(const Arguments &arguments) {
    const std::optional<std::string> lock_path = arguments.value("--lock");
    if (arguments.program.empty() && !lock_path) {
        return Error{"nothing to look at: dev doctor wants -- CMD, --lock FILE or both"};
    }
    std::vector<Subject> subjects;
    if (!arguments.program.empty()) {
        if (const Result<std::string> library = preload_library(); !library) return library.error();
        Result<std::vector<Subject>> found = subjects_of(arguments.program[0]);
        if (!found) return found.error();
        subjects = std::move(*found);
    }
    std::optional<LockPlace> lock;
    if (lock_path) {
        Result<LockPlace> place = place_of_lock(*lock_path);
        if (!place) return place.error();
        lock = std::move(*place);
    }
    write_out(arguments.has("--json") ? json_of(subjects, lock) : text_of(subjects, lock));
    for (const Subject &subject : subjects) {
        if (!subject.why_not.empty()) return kExitUntraceable;
    }
    return kExitDone;
}

}  // namespace planloop::cli
