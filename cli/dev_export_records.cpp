// planloop dev export-logs, export-llm, export-traces, export-diffs, export-performance: a session's records of one
// kind as one JSON array, the oldest first; an empty one where there are none.
//
// export-logs first finishes planloop.jsonl: what the preloaded library recorded while no `dev run` looked on.

#include <fmt/format.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "cli/json_lines.h"
#include "cli/live_export.h"
#include "cli/output.h"
#include "cli/plan_session.h"
#include "cli/record_lookup.h"
#include "cli/supervised_spool.h"
#include "lockcore/clock.h"
#include "lockcore/dev_mode.h"
#include "lockcore/file_lock.h"
#include "lockcore/record_files.h"

namespace planloop::cli {
namespace {

constexpr std::chrono::minutes kMostPatience{30};
constexpr std::chrono::seconds kPatienceWithOthers{10};

// An array, element by element; with a limit the last ones.
class ArrayOutput {
  public:
    explicit ArrayOutput(std::optional<std::size_t> tail) : tail_(tail) {}
    void add(std::string element) {
        while (!element.empty() && (element.back() == '\n' || element.back() == ' ')) element.pop_back();
        if (!tail_) return write(element);
        kept_.push_back(std::move(element));
        if (kept_.size() > *tail_) kept_.pop_front();
    }
    void finish() {
        for (const std::string &element : kept_) write(element);
        write_out(any_ ? "\n]\n" : "[]\n");
    }

  private:
    void write(const std::string &element) {
        write_out(any_ ? ",\n" : "[\n");
        write_out(element);
        any_ = true;
    }
    std::optional<std::size_t> tail_;
    std::deque<std::string> kept_;
    bool any_ = false;
};

Result<std::optional<std::size_t>> tail_of(const Arguments &arguments) {
    const auto given = arguments.value("--tail");
    if (!given) return std::optional<std::size_t>();
    std::size_t number = 0;
    const char *const end = given->data() + given->size();
    const auto [stop, error] = std::from_chars(given->data(), end, number);
    if (error != std::errc() || stop != end) return Error{fmt::format("--tail wants a number, not '{}'", *given)};
    return std::optional(number);
}

void say_passed_over(std::uint64_t count, const std::string &path) {
    if (count > 0) say(fmt::format("{}: {} lines that are no JSON object, or too long, were passed over", path, count));
}

Result<int> export_lines(const Arguments &arguments, const std::string &path) {
    const auto tail = tail_of(arguments);
    if (!tail) return tail.error();
    ArrayOutput out(*tail);
    const auto count = each_json_line(path, [&](const JsonLine &line) {
        out.add(std::string(line.text));
        return true;
    });
    if (!count) return count.error();
    out.finish();
    say_passed_over(count->passed_over, path);
    return kExitDone;
}

Result<int> export_documents(const Arguments &arguments, std::string (*folder_of)(const Session &),
                             std::string_view ending) {
    const auto tail = tail_of(arguments);
    if (!tail) return tail.error();
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    const std::string folder = folder_of(*session);
    std::vector<std::pair<std::string, std::string>> documents;  // time and path
    for (const std::string &name : list_records(folder, ending)) {
        const std::string path = fmt::format("{}/{}", folder, name);
        const auto document = read_record(path);
        if (!document) {
            say(document.error().message);
        } else if (!is_json_object(*document)) {
            say(fmt::format("{} is no JSON object: passed over", path));
        } else {
            documents.emplace_back(time_of_document(*document), path);
        }
    }
    std::sort(documents.begin(), documents.end());
    ArrayOutput out(std::nullopt);
    const std::size_t first = *tail ? documents.size() - std::min(documents.size(), **tail) : 0;
    for (std::size_t i = first; i < documents.size(); ++i) {
        if (auto document = read_record(documents[i].second)) out.add(std::move(*document));
    }
    out.finish();
    return kExitDone;
}

// Events of one spool that are not in planloop.jsonl yet.
void finish_log_of(const Session &session, const std::string &spool) {
    const int finished = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    LiveExport rest = LiveExport::start(session, {spool, true, false, finished, -1});
    rest.finish_soon(kMostPatience);
    const LiveExport::Outcome outcome = rest.outcome();
    if (!outcome.error.empty()) say(fmt::format("planloop.jsonl is not complete: {}", outcome.error));
    ::close(finished);
}

std::string ending_of_this_boot() {
    const BootId boot = boot_id();
    return fmt::format("-{:02x}{:02x}{:02x}{:02x}.spool", boot[0], boot[1], boot[2], boot[3]);
}

void finish_log(const Session &session) {
    const auto spools = list_spools(session);
    if (!spools || spools->empty() || recording_refused()) return;
    auto lock = FileLock::open(session.logs_dir() + "/.exporting", FileLock::Recorded::no);
    if (!lock) return say(lock.error().message);
    try {
        const std::unique_lock guard(*lock, kPatienceWithOthers);
        if (!guard) return say("somebody else exports this session");
        for (const std::string &spool : *spools) {
            const bool of_this_boot = spool.ends_with(ending_of_this_boot());
            std::unique_ptr<SupervisedSpool> led;
            if (of_this_boot) {
                auto opened = SupervisedSpool::open(session);
                if (!opened) {
                    say(opened.error().message);
                    continue;
                }
                led = std::move(*opened);
                if (!led->try_to_lead()) continue;  // a `dev run` is at work, and exports by itself
            }
            finish_log_of(session, spool);
        }
    } catch (const std::system_error &error) {
        say(error.what());
    }
}

}  // namespace

Result<int> run_dev_export_logs(const Arguments &arguments) {
    survive_size_limit();
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    finish_log(*session);
    return export_lines(arguments, session->log_file());
}

Result<int> run_dev_export_performance(const Arguments &arguments) {
    const auto session = session_of_records(arguments);
    if (!session) return session.error();
    return export_lines(arguments, performance_file(*session));
}

Result<int> run_dev_export_llm(const Arguments &arguments) {
    return export_documents(arguments, transcripts_dir, "_llm.json");
}

Result<int> run_dev_export_traces(const Arguments &arguments) {
    return export_documents(arguments, traces_dir, ".json");
}

Result<int> run_dev_export_diffs(const Arguments &arguments) {
    return export_documents(arguments, diffs_dir, "_diff.json");
}

}  // namespace planloop::cli
