// planloop dev scrub: takes secrets out of what a session recorded, for records that were written by other programs, or
// before a rule was known.
//
// A file is written anew under another name and renamed; what stands in its lines and fields keeps its place, order and
// type. Logs grow while they are read: first nobody else may have them open, and lines that came until the rename are
// carried over, so that none is lost.

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <optional>

#include "analysis/render/escape.h"
#include "cli/command.h"
#include "cli/json_lines.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "cli/record_lookup.h"
#include "lockcore/descriptor.h"
#include "lockcore/jsonl.h"
#include "lockcore/numbered_entries.h"
#include "lockcore/record_files.h"
#include "lockcore/redact.h"

namespace planloop::cli {
namespace {

struct Scrubbed {
    std::uint64_t files = 0, changed = 0;
};

// A process that has the file open, other than this one; those of other users cannot be seen.
std::optional<pid_t> process_that_has_open(const struct stat &file) {
    std::optional<pid_t> found;
    for_each_number("/proc", [&](pid_t pid) {
        if (found || pid == ::getpid()) return;
        const std::string folder = fmt::format("/proc/{}/fd", pid);
        for_each_number(folder, [&](int fd) {
            struct stat status {};
            if (::stat(fmt::format("{}/{}", folder, fd).c_str(), &status) != 0) return;
            if (status.st_dev == file.st_dev && status.st_ino == file.st_ino) found = pid;
        });
    });
    return found;
}

Error file_error(std::string_view what, const std::string &path) {
    return {
        fmt::format("cannot {} {}: {}", what, printable(path), std::strerror(errno))};  // NOLINT(concurrency-mt-unsafe)
}

Result<void> write_all(int fd, std::string_view text, const std::string &path) {
    while (!text.empty()) {
        const ssize_t wrote = ::write(fd, text.data(), text.size());
        if (wrote < 0 && errno == EINTR) continue;
        if (wrote < 0) return file_error("write", path);
        text.remove_prefix(static_cast<std::size_t>(wrote));
    }
    return {};
}

// Copies what is behind `from` up to the present end, line by line.
// Gives where it stopped.
Result<std::uint64_t> copy_lines(int in, std::uint64_t from, int out, const std::string &path, bool &changed) {
    constexpr std::size_t kPiece = std::size_t{256} << 10;
    std::string pending;
    std::string piece(kPiece, '\0');
    std::uint64_t at = from;
    const auto flush = [&](std::size_t length) -> Result<void> {
        const std::string_view line(pending.data(), length);
        const bool json = !line.empty() && line.front() == '{';
        const std::string clean = json ? redacted_json(line) : redacted(line);
        changed = changed || clean != line;
        auto written = write_all(out, clean, path);
        pending.erase(0, length);
        return written;
    };
    for (;;) {
        const ssize_t got = ::pread(in, piece.data(), piece.size(), static_cast<off_t>(at));
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return file_error("read", path);
        if (got == 0) break;
        at += static_cast<std::uint64_t>(got);
        pending.append(piece, 0, static_cast<std::size_t>(got));
        for (std::size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
            if (auto written = flush(end + 1); !written) return written.error();
        }
    }
    if (auto written = flush(pending.size()); !written) return written.error();
    return at;
}

Result<void> scrub_lines(const std::string &path, Scrubbed &done) {
    const Descriptor in(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY));
    if (in.get() < 0 && errno == ENOENT) return {};
    struct stat file {};
    if (in.get() < 0 || ::fstat(in.get(), &file) != 0) return file_error("read", path);
    if (const auto writer = process_that_has_open(file)) {
        return Error{
            fmt::format("process {} writes to {}: scrub the session when it has ended", *writer, printable(path))};
    }
    const std::string unfinished = fmt::format("{}.scrub.{}", path, ::getpid());
    const Descriptor out(
        ::open(unfinished.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (out.get() < 0) return file_error("write", unfinished);
    const auto give_up = [&](const Error &error) {
        ::unlink(unfinished.c_str());
        return error;
    };
    bool changed = false;
    auto copied = copy_lines(in.get(), 0, out.get(), unfinished, changed);
    if (!copied) return give_up(copied.error());
    ++done.files;
    if (!changed) {
        ::unlink(unfinished.c_str());
        return {};
    }
    if (::fsync(out.get()) != 0 || ::rename(unfinished.c_str(), path.c_str()) != 0) {
        return give_up(file_error("replace", path));
    }
    ++done.changed;
    // Whoever opened the old file in between writes its line to that one, and is soon done.
    constexpr int kLooks = 200;
    for (int look = 0; look < kLooks; ++look) {
        const bool open_elsewhere = process_that_has_open(file).has_value();
        copied = copy_lines(in.get(), *copied, out.get(), path, changed);
        if (!copied) return copied.error();
        if (!open_elsewhere) return {};
        ::usleep(10'000);
    }
    return Error{fmt::format("a program that began in this moment still writes to the former {}", printable(path))};
}

Result<void> scrub_documents(const std::string &folder, Scrubbed &done) {
    for (const std::string &name : list_records(folder, ".json")) {
        const std::string path = fmt::format("{}/{}", folder, name);
        const auto document = read_record(path);
        if (!document) {
            say(fmt::format("{}: left as it is", document.error().message));
            continue;
        }
        ++done.files;
        const std::string clean = redacted_json(*document);
        if (clean == *document) continue;
        if (auto written = replace_record(path, clean); !written) return written;
        ++done.changed;
    }
    return {};
}

}  // namespace

Result<int> run_dev_scrub(const Arguments &arguments) {
    survive_size_limit();
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    Scrubbed done;
    for (const std::string &log : {session->log_file(), performance_file(*session)}) {
        if (auto scrubbed = scrub_lines(log, done); !scrubbed) return failed(scrubbed.error());
    }
    for (const std::string &folder :
         {errors_dir(*session), traces_dir(*session), transcripts_dir(*session), diffs_dir(*session)}) {
        if (auto scrubbed = scrub_documents(folder, done); !scrubbed) return failed(scrubbed.error());
    }
    for (const std::string &name : list_records(crash_dir(*session), "")) {
        say(fmt::format("{}/{} is a memory image that could not be read: left as it is", crash_dir(*session), name));
    }
    if (arguments.has("--json")) {
        std::string out = "{\"session\":";
        append_json_string(out, session->id);
        write_out(fmt::format("{},\"files\":{},\"changed\":{}}}\n", out, done.files, done.changed));
    } else {
        write_out(fmt::format("session {}: {} files looked at, {} changed\n", analysis::terminal_text(session->id),
                              done.files, done.changed));
    }
    return kExitDone;
}

}  // namespace planloop::cli
