#include "cli/final_report.h"

#include <fmt/format.h>

#include <exception>
#include <future>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "analysis/render/text.h"
#include "analysis/source/event_source.h"
#include "cli/analysis_options.h"
#include "cli/output.h"
#include "cli/progress.h"

namespace planloop::cli {
namespace {

struct Reading {
    analysis::Report report;
    std::string unread;  // as in LiveExport::Outcome
};

Result<Reading> read_again(const Session &session, const std::string &spool_path) {
    analysis::SourceOptions source_options;
    source_options.own_spool = spool_path;
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session, source_options);
    if (!source) return source.error();
    const std::unique_ptr<analysis::EventSource> watched = with_progress(std::move(*source));
    analysis::AnalysisOptions options = options_for(session);
    options.named_call_sites = 0;
    Reading reading{analysis::analyse(*watched, options), {}};
    const analysis::SourceNotes notes = watched->notes();
    reading.unread = LiveExport::unread_in(notes);
    if (notes.own_unread) return Error{reading.unread.empty() ? "its spool is gone" : reading.unread};
    return reading;
}

// Nothing: it takes longer.
std::optional<Result<Reading>> read_again_until(const Session &session, const std::string &spool_path,
                                                std::chrono::steady_clock::time_point until) {
    auto done = std::make_shared<std::promise<Result<Reading>>>();
    std::future<Result<Reading>> report = done->get_future();
    std::thread([done, session, spool_path] {
        try {
            done->set_value(read_again(session, spool_path));
        } catch (const std::exception &failure) {  // no memory, most likely
            done->set_value(Error{failure.what()});
        }
    }).detach();
    if (report.wait_until(until) != std::future_status::ready) return std::nullopt;
    return report.get();
}

}  // namespace

std::optional<analysis::Report> tell_verdict(const Session &session, const std::string &spool_path,
                                             const LiveExport::Outcome &outcome,
                                             std::optional<std::chrono::steady_clock::time_point> until) {
    if (!outcome.error.empty()) say(fmt::format("planloop.jsonl is not complete: {}", outcome.error));
    std::optional<Result<Reading>> reading;
    if (outcome.report) {
        reading.emplace(Reading{*outcome.report, outcome.unread});
    } else {
        reading = until ? read_again_until(session, spool_path, *until) : read_again(session, spool_path);
    }
    if (!reading) {
        say(
            fmt::format("session {}: to read what was recorded takes longer than a run waits; to see it: planloop dev "
                        "locks --session {}",
                        session.id, session.id));
        return std::nullopt;
    }
    if (!*reading) {
        say(reading->error().message);
        say(fmt::format("session {}: what was recorded cannot be read", session.id));
        return std::nullopt;
    }
    analysis::Report &report = (*reading)->report;
    if (!(*reading)->unread.empty()) say((*reading)->unread);
    say(fmt::format("session {}: {}", session.id, analysis::recorded_sentence(report)));
    say(fmt::format("{}; to see it: planloop dev locks --session {}", analysis::verdict_sentence(report), session.id));
    return std::move(report);
}

}  // namespace planloop::cli
