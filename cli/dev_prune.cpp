// planloop dev prune: gives back the room of recordings that are no longer wanted: deletes those that are old or too
// many, compresses those that stay. Only `logs/` of a session goes, never a plan, and never what is being recorded.

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <charconv>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/output.h"
#include "lockcore/clock.h"
#include "lockcore/closed_spool.h"
#include "lockcore/packed_spool.h"
#include "lockcore/session.h"
#include "lockcore/wire/size_text.h"

namespace planloop::cli {
namespace {

namespace fs = std::filesystem;

struct Wishes {
    std::optional<std::int64_t> older_than_ns;
    std::optional<std::uint64_t> most_bytes;
    bool compress = false;
    bool dry_run = false;
};

struct Recording {
    Session session;
    std::int64_t last_activity_ns = 0;
    std::uint64_t bytes = 0;  // on disk, of all its logs
    bool in_use = false;
};

// 30d, 12h, 90m, 45s, 2w.
Result<std::int64_t> parse_duration(const std::string &text) {
    constexpr std::pair<char, std::int64_t> kUnits[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}};
    std::int64_t count = -1;
    const char *const end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(text.data(), end, count);
    for (const auto &[unit, seconds] : kUnits) {
        constexpr std::int64_t kMostSeconds = 9'000'000'000;
        if (error != std::errc() || stop + 1 != end || *stop != unit) continue;
        if (count >= 0 && count <= kMostSeconds / seconds) return count * seconds * 1'000'000'000;
    }
    return Error{fmt::format("--older-than wants a time, as 30d, 12h or 90m, not '{}'", printable(text))};
}

Result<Wishes> wishes_of(const Arguments &arguments) {
    Wishes wishes;
    if (const auto age = arguments.value("--older-than")) {
        const Result<std::int64_t> ns = parse_duration(*age);
        if (!ns) return ns.error();
        wishes.older_than_ns = *ns;
    }
    if (const auto size = arguments.value("--max-size")) {
        std::uint64_t bytes = 0;
        if (!wire::parse_size(size->c_str(), bytes))
            return Error{fmt::format("--max-size wants a size, as 500M or 2G, not '{}'", printable(*size))};
        wishes.most_bytes = bytes;
    }
    wishes.compress = arguments.has("--compress");
    wishes.dry_run = arguments.has("--dry-run");
    if (!wishes.older_than_ns && !wishes.most_bytes && !wishes.compress)
        return Error{"nothing to do: say --older-than, --max-size or --compress"};
    return wishes;
}

std::string size_text(std::uint64_t bytes) {
    constexpr std::uint64_t kKilo = 1024;
    if (bytes < kKilo * kKilo) return fmt::format("{} KiB", (bytes + kKilo - 1) / kKilo);
    return fmt::format("{}.{} MiB", bytes / (kKilo * kKilo), bytes / kKilo * 10 / kKilo % 10);
}

// Everything under the logs, links not followed.
void measure(Recording &recording) {
    std::error_code failed;
    const fs::path logs = recording.session.logs_dir();
    for (fs::recursive_directory_iterator at(logs, failed), end; !failed && at != end; at.increment(failed)) {
        struct stat status {};
        if (lstat(at->path().c_str(), &status) != 0) continue;
        recording.bytes += static_cast<std::uint64_t>(status.st_blocks) * 512;
        if (!S_ISREG(status.st_mode)) continue;
        const std::int64_t changed_ns =
            static_cast<std::int64_t>(status.st_mtim.tv_sec) * 1'000'000'000 + status.st_mtim.tv_nsec;
        recording.last_activity_ns = std::max(recording.last_activity_ns, changed_ns);
    }
}

std::vector<std::string> spools_of(const Session &session) {
    Result<std::vector<std::string>> spools = list_spools(session);
    return spools ? std::move(*spools) : std::vector<std::string>();
}

bool in_use(const Session &session, const MappedFiles &mapped) {
    const std::vector<std::string> spools = spools_of(session);
    return std::any_of(spools.begin(), spools.end(),
                       [&](const std::string &spool) { return spool_in_use(spool, mapped); });
}

// Oldest first.
std::vector<Recording> recordings() {
    std::vector<Recording> all;
    const MappedFiles mapped = mapped_spools();
    for (const SessionSummary &summary : list_sessions()) {
        Result<Session> session = find_session(summary.id);
        if (!session || session->id != summary.id) continue;
        Recording recording;
        recording.session = std::move(*session);
        measure(recording);
        if (recording.last_activity_ns == 0) continue;  // a plan that nothing was recorded for
        recording.in_use = in_use(recording.session, mapped);
        all.push_back(std::move(recording));
    }
    std::sort(all.begin(), all.end(),
              [](const Recording &a, const Recording &b) { return a.last_activity_ns < b.last_activity_ns; });
    return all;
}

struct Outcome {
    std::uint64_t freed = 0;
    std::uint64_t deleted = 0, compressed = 0;
    bool failed = false;
};

// Closes what would still be written into: a program that comes now makes a new spool, which is not deleted.
bool remove_logs(const Session &session) {
    for (const std::string &spool : spools_of(session)) {
        if (spool.size() > kPackedEnding.size() && spool.ends_with(kPackedEnding)) continue;
        const Result<std::string> closed = close_spool(spool);
        if (closed && closed->empty()) {
            say(fmt::format("{}: is being recorded: kept", printable(session.id)));
            return false;
        }
    }
    std::error_code failed;
    fs::remove_all(session.logs_dir(), failed);
    if (failed) {
        say(fmt::format("{}: cannot be deleted: {}", printable(session.logs_dir()), failed.message()));
        return false;
    }
    std::error_code has_a_plan;
    fs::remove(session.directory, has_a_plan);  // only if nothing else is in it
    return true;
}

void remove(Recording &recording, const Wishes &wishes, std::string_view why, Outcome &outcome) {
    if (!wishes.dry_run && !remove_logs(recording.session)) {
        outcome.failed = true;
        return;
    }
    write_out(fmt::format("{} {} ({}, last recorded {} UTC): {}\n", wishes.dry_run ? "would delete" : "deleted",
                          printable(recording.session.id), size_text(recording.bytes),
                          format_utc(recording.last_activity_ns).substr(0, 19), why));
    ++outcome.deleted;
    outcome.freed += recording.bytes;
    recording.bytes = 0;
}

void compress(const Recording &recording, const Wishes &wishes, Outcome &outcome) {
    for (const std::string &spool : spools_of(recording.session)) {
        if (spool.ends_with(kPackedEnding)) continue;
        if (wishes.dry_run) {
            write_out(fmt::format("would compress {}\n", printable(spool)));
            continue;
        }
        const Result<std::string> closed = close_spool(spool);
        if (closed && closed->empty()) continue;  // somebody has just begun to use it
        const Result<Compressed> sizes = closed ? compress_closed_spool(*closed) : Result<Compressed>(closed.error());
        if (!sizes) {
            say(sizes.error().message);
            outcome.failed = true;
            continue;
        }
        write_out(fmt::format("compressed {}: {} to {}\n", printable(recording.session.id), size_text(sizes->before),
                              size_text(sizes->after)));
        ++outcome.compressed;
        outcome.freed += sizes->before - std::min(sizes->before, sizes->after);
    }
}

}  // namespace

Result<int> run_dev_prune(const Arguments &arguments) {
    const Result<Wishes> wishes = wishes_of(arguments);
    if (!wishes) return wishes.error();
    std::vector<Recording> all = recordings();
    std::uint64_t total = 0;
    std::uint64_t used = 0;
    for (const Recording &recording : all) {
        total += recording.bytes;
        if (recording.in_use) ++used;
    }
    Outcome outcome;
    const std::int64_t now_ns = utc_now_ns();
    for (Recording &recording : all) {
        if (recording.in_use) continue;
        const std::uint64_t freed = outcome.freed;
        if (wishes->older_than_ns && now_ns - recording.last_activity_ns > *wishes->older_than_ns) {
            remove(recording, *wishes, fmt::format("older than {}", *arguments.value("--older-than")), outcome);
        } else if (wishes->most_bytes && total > *wishes->most_bytes) {
            remove(recording, *wishes, fmt::format("more than {} in all", *arguments.value("--max-size")), outcome);
        } else if (wishes->compress) {
            compress(recording, *wishes, outcome);
            continue;
        }
        total -= outcome.freed - freed;
    }
    std::string kept;
    if (used > 0) kept = fmt::format("; {} in use, not touched", used);
    say(fmt::format("{} {}, {} {} deleted{}", wishes->dry_run ? "would free" : "freed", size_text(outcome.freed),
                    outcome.deleted, outcome.deleted == 1 ? "session" : "sessions", kept));
    return outcome.failed ? kExitBadInput : kExitDone;
}

}  // namespace planloop::cli
