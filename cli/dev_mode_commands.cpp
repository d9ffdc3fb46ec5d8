// planloop dev on, off, status, dogfood, restore: the markers that other programs read (lockcore/dev_mode.h), what is
// recorded, and the way back from a build of one's own.
//
// dogfood keeps in `$PLANLOOP_HOME/backups/<time>/` a copy of the installed binary (`planloop` in $PATH, else the
// running one) and where its link points, and tags the commit that one works on; restore puts both back. Each is whole
// or not there: copied aside, then renamed.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "analysis/render/escape.h"
#include "cli/command.h"
#include "cli/git_repository.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "cli/program.h"
#include "lockcore/clock.h"
#include "lockcore/descriptor.h"
#include "lockcore/dev_mode.h"
#include "lockcore/jsonl.h"
#include "lockcore/record_files.h"

namespace planloop::cli {
namespace {

namespace fs = std::filesystem;
using analysis::terminal_text;

// What is installed: a binary, and the link through which it is found, if one is.
struct Installed {
    std::string binary, link, link_target;
};

Result<Installed> installed_planloop() {
    std::error_code failed;
    Installed found;
    const std::string in_path = find_program("planloop");
    const fs::path start = in_path.empty() ? fs::path("/proc/self/exe") : fs::absolute(in_path, failed);
    if (!in_path.empty() && fs::is_symlink(start, failed)) {
        found.link = start.string();
        found.link_target = fs::read_symlink(start, failed).string();
    }
    found.binary = fs::canonical(start, failed).string();
    if (failed) return Error{fmt::format("cannot find the installed planloop: {}", failed.message())};
    return found;
}

// Bytes and rights of a file, brought to the disk under a new name: 0 or an errno. std::filesystem::copy_file would do,
// but it calls a full disk an input/output error.
int copy_bytes(const std::string &from, const std::string &to) {
    const Descriptor source(::open(from.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat status {};
    if (source.get() < 0 || ::fstat(source.get(), &status) != 0) return errno;
    const Descriptor copy(::open(to.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (copy.get() < 0) return errno;
    for (off_t done = 0; done < status.st_size;) {
        const ssize_t copied =
            ::sendfile(copy.get(), source.get(), nullptr, static_cast<std::size_t>(status.st_size - done));
        if (copied < 0 && errno != EINTR) return errno;
        if (copied == 0) return EIO;  // it was cut short meanwhile
        done += std::max<ssize_t>(copied, 0);
    }
    return ::fchmod(copy.get(), status.st_mode & 07777) != 0 || ::fsync(copy.get()) != 0 ? errno : 0;
}

// All of the file under the new name, or what was there before.
Result<void> copy_file(const std::string &from, const std::string &to) {
    const std::string unfinished = fmt::format("{}.new.{}", to, ::getpid());
    int error = copy_bytes(from, unfinished);
    if (error == 0 && ::rename(unfinished.c_str(), to.c_str()) != 0) error = errno;
    if (error == 0) return {};
    ::unlink(unfinished.c_str());
    return Error{fmt::format("cannot copy {} to {}: {}", printable(from), printable(to),
                             std::generic_category().message(error))};
}

Result<void> point_link(const std::string &link, const std::string &target) {
    const std::string unfinished = fmt::format("{}.new.{}", link, ::getpid());
    std::error_code failed;
    fs::remove(unfinished, failed);
    fs::create_symlink(target, unfinished, failed);
    if (!failed) fs::rename(unfinished, link, failed);
    if (!failed) return {};
    std::error_code ignored;
    fs::remove(unfinished, ignored);
    return Error{fmt::format("cannot make the link {}: {}", printable(link), failed.message())};
}

// `name` holds one text a line: binary, link, target of the link.
std::string facts_path(const std::string &backup) {
    return backup + "/installed";
}

Result<std::string> back_up(const Installed &installed, const std::string &time) {
    std::string folder = fmt::format("{}/backups/{}", planloop_home(), time);
    if (auto made = make_record_folder(folder); !made) return made.error();
    const std::string facts = fmt::format("{}\n{}\n{}\n", installed.binary, installed.link, installed.link_target);
    Result<void> kept = copy_file(installed.binary, folder + "/planloop");
    if (kept) kept = replace_record(facts_path(folder), facts);
    if (kept) return folder;
    std::error_code ignored;
    fs::remove_all(folder, ignored);
    return kept.error();
}

std::string features_text(const RecordingFeatures &features) {
    const auto word = [](bool on) { return on ? "on" : "off"; };
    return fmt::format("llm_recording {}, tracing {}, profiling {}", word(features.llm_recording),
                       word(features.tracing), word(features.profiling));
}

DevMode mode_here(std::string name, const std::optional<GitRepository> &repository) {
    DevMode mode;
    mode.mode = std::move(name);
    mode.enabled_at = format_utc(utc_now_ns());
    if (repository) {
        mode.repo_path = repository->path;
        mode.git_commit = repository->commit;
    }
    return mode;
}

}  // namespace

Result<int> run_dev_on(const Arguments &) {
    survive_size_limit();
    DevMode mode = mode_here("dev", git_repository_here());
    if (const auto before = read_dev_mode()) mode.backup_path = before->backup_path;
    if (auto written = write_dev_mode(mode); !written) return failed(written.error());
    write_out(fmt::format("dev mode on: {}\n", features_text(mode.features)));
    return kExitDone;
}

Result<int> run_dev_off(const Arguments &) {
    survive_size_limit();
    DevMode mode;
    if (const auto before = read_dev_mode()) mode = *before;
    mode.mode = "off";
    mode.features = {false, false, false};
    if (auto written = write_dev_mode(mode); !written) return failed(written.error());
    write_out("dev mode off: only errors and lock events are recorded\n");
    return kExitDone;
}

Result<int> run_dev_dogfood(const Arguments &) {
    survive_size_limit();
    const auto installed = installed_planloop();
    if (!installed) return failed(installed.error());
    const std::string time = compact_utc(utc_now_ns(), true);
    const auto backup = back_up(*installed, time);
    if (!backup) return failed(backup.error());
    const auto repository = git_repository_here();
    DevMode mode = mode_here("dogfood", repository);
    mode.backup_path = *backup;
    if (auto written = write_dev_mode(mode); !written) return failed(written.error());
    write_out(fmt::format("dogfood: {}\nbackup   {} of {}\n", features_text(mode.features), terminal_text(*backup),
                          terminal_text(installed->binary)));
    const std::string tag = "planloop-dogfood-" + time;
    if (repository && !repository->commit.empty() && git_tag(*repository, tag)) {
        write_out(fmt::format("git tag  {} in {}\n", tag, terminal_text(repository->path)));
    } else {
        write_out("git tag  none: no repository with a commit here\n");
    }
    return kExitDone;
}

Result<int> run_dev_restore(const Arguments &) {
    survive_size_limit();
    auto mode = read_dev_mode();
    if (!mode || mode->backup_path.empty())
        return failed({"nothing to restore: planloop dev dogfood makes the backup"});
    const auto facts = read_record(facts_path(mode->backup_path));
    if (!facts) return failed(facts.error());
    Installed installed;
    std::size_t at = 0;
    for (std::string *field : {&installed.binary, &installed.link, &installed.link_target}) {
        const std::size_t end = std::min(facts->find('\n', at), facts->size());
        *field = facts->substr(at, end - at);
        at = std::min(end + 1, facts->size());
    }
    if (installed.binary.empty())
        return failed({fmt::format("{} is damaged", printable(facts_path(mode->backup_path)))});
    if (auto copied = copy_file(mode->backup_path + "/planloop", installed.binary); !copied)
        return failed(copied.error());
    if (!installed.link.empty()) {
        if (auto pointed = point_link(installed.link, installed.link_target); !pointed) return failed(pointed.error());
    }
    const std::string backup = mode->backup_path;
    mode->mode = "off";
    mode->backup_path.clear();
    mode->features = {false, false, false};
    if (auto written = write_dev_mode(*mode); !written) return failed(written.error());
    write_out(
        fmt::format("restored {} from {}; dev mode off\n", terminal_text(installed.binary), terminal_text(backup)));
    return kExitDone;
}

Result<int> run_dev_status(const Arguments &arguments) {
    const auto mode = read_dev_mode();
    const RecordingFeatures features = recording_features();
    const DevMode shown = mode.value_or(DevMode{});
    if (arguments.has("--json")) {
        std::string out = "{\"mode\":";
        append_json_string(out, shown.mode);
        const std::pair<std::string_view, const std::string &> fields[] = {{"enabled_at", shown.enabled_at},
                                                                           {"repo_path", shown.repo_path},
                                                                           {"git_commit", shown.git_commit},
                                                                           {"backup_path", shown.backup_path}};
        for (const auto &[name, value] : fields) {
            out += fmt::format(",\"{}\":", name);
            if (value.empty()) {
                out += "null";
            } else {
                append_json_string(out, value);
            }
        }
        out += fmt::format(
            R"(,"features":{{"llm_recording":{},"tracing":{},"profiling":{}}},"recording_refused":{},"home":)",
            features.llm_recording, features.tracing, features.profiling, recording_refused());
        append_json_string(out, planloop_home());
        write_out(out + "}\n");
        return kExitDone;
    }
    write_out(fmt::format("mode     {}\nrecords  {}\n",
                          mode ? terminal_text(shown.mode) : "not chosen, all is recorded",
                          recording_refused() ? "nothing: PLANLOOP_NO_RECORDING=1" : features_text(features)));
    const std::pair<std::string_view, const std::string &> lines[] = {{"since", shown.enabled_at},
                                                                      {"repo", shown.repo_path},
                                                                      {"commit", shown.git_commit},
                                                                      {"backup", shown.backup_path}};
    for (const auto &[name, value] : lines) {
        if (!value.empty()) write_out(fmt::format("{:<8} {}\n", name, terminal_text(value)));
    }
    write_out(fmt::format("home     {}\n", terminal_text(planloop_home())));
    return kExitDone;
}

}  // namespace planloop::cli
