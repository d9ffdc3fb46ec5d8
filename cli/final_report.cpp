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

Result<analysis::Report> read_again(const Session &session) {
    Result<std::unique_ptr<analysis::EventSource>> source = analysis::open_session(session);
    if (!source) return source.error();
    const std::unique_ptr<analysis::EventSource> watched = with_progress(std::move(*source));
    analysis::AnalysisOptions options = options_for(session);
    options.named_call_sites = 0;
    return analysis::analyse(*watched, options);
}

// Nothing: it takes longer.
std::optional<Result<analysis::Report>> read_again_until(const Session &session,
                                                         std::chrono::steady_clock::time_point until) {
    auto done = std::make_shared<std::promise<Result<analysis::Report>>>();
    std::future<Result<analysis::Report>> report = done->get_future();
    std::thread([done, session] {
        try {
            done->set_value(read_again(session));
        } catch (const std::exception &failure) {  // no memory, most likely
            done->set_value(Error{failure.what()});
        }
    }).detach();
    if (report.wait_until(until) != std::future_status::ready) return std::nullopt;
    return report.get();
}

}  // namespace

std::optional<analysis::Report> tell_verdict(const Session &session, const LiveExport::Outcome &outcome,
                                             std::optional<std::chrono::steady_clock::time_point> until) {
    if (!outcome.error.empty()) say(fmt::format("planloop.jsonl is not complete: {}", outcome.error));
    std::optional<Result<analysis::Report>> report;
    if (outcome.report) {
        report.emplace(*outcome.report);
    } else {
        report = until ? read_again_until(session, *until) : read_again(session);
    }
    if (!report) {
        say(
            fmt::format("session {}: to read what was recorded takes longer than a run waits; to see it: planloop dev "
                        "locks --session {}",
                        session.id, session.id));
        return std::nullopt;
    }
    if (!*report) {
        say(report->error().message);
        say(fmt::format("session {}: what was recorded cannot be read", session.id));
        return std::nullopt;
    }
    say(fmt::format("session {}: {}", session.id, analysis::recorded_sentence(**report)));
    say(fmt::format("{}; to see it: planloop dev locks --session {}", analysis::verdict_sentence(**report),
                    session.id));
    return std::move(**report);
}

}  // namespace planloop::cli
