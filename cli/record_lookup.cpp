#include "cli/record_lookup.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>
#include <set>

#include "cli/arguments.h"
#include "cli/json_lines.h"
#include "cli/process_at.h"
#include "lockcore/crash_capture.h"
#include "lockcore/dev_mode.h"
#include "lockcore/record_files.h"
#include "lockcore/state_file.h"
#include "lockcore/trace_file.h"

namespace planloop::cli {
namespace {

constexpr std::size_t kMostNamed = 10;

void bring_in(const Session &session) {
    if (recording_refused()) return;
    finish_abandoned_traces(session);
    name_crashes(session, [&](std::int32_t pid, std::int32_t tid, std::int64_t utc_ns) {
        return process_at(session, pid, tid, utc_ns);
    });
}

void add_ids(std::set<std::string> &ids, const std::string &folder, std::string_view ending) {
    for (const std::string &name : list_records(folder, ending)) ids.emplace(trace_id_in_name(name));
}

std::set<std::string> ids_of_files(const Session &session, Wanted wanted) {
    std::set<std::string> ids;
    add_ids(ids, errors_dir(session), "_error.json");
    if (wanted == Wanted::error) return ids;
    add_ids(ids, traces_dir(session), ".json");
    add_ids(ids, transcripts_dir(session), "_llm.json");
    add_ids(ids, diffs_dir(session), "_diff.json");
    return ids;
}

// Of programs that left lock events and nothing else.
std::set<std::string> ids_of_log(const Session &session) {
    std::set<std::string> ids;
    static_cast<void>(each_json_line(session.log_file(), [&](const JsonLine &line) {
        if (!line.trace_id.empty()) ids.insert(line.trace_id);
        return true;
    }));
    return ids;
}

struct Candidates {
    std::vector<FoundTrace> exact, by_prefix;
    std::vector<std::string> all;
};

void collect(Candidates &found, const Session &session, const std::set<std::string> &ids, std::string_view typed) {
    for (const std::string &id : ids) {
        found.all.push_back(id);
        if (id == typed) found.exact.push_back({session, id});
        if (id.compare(0, typed.size(), typed) == 0) found.by_prefix.push_back({session, id});
    }
}

std::string_view what_is_wanted(Wanted wanted) {
    return wanted == Wanted::error ? "error" : "trace";
}

Error several(const std::vector<FoundTrace> &found, std::string_view typed, Wanted wanted) {
    std::string names;
    for (std::size_t i = 0; i < found.size() && i < kMostNamed; ++i) {
        names += fmt::format("{}{} (session {})", i == 0 ? "" : ", ", printable(found[i].id),
                             printable(found[i].session.id));
    }
    if (found.size() > kMostNamed) names += fmt::format(" and {} more", found.size() - kMostNamed);
    return {fmt::format("{} '{}' is ambiguous: {}", what_is_wanted(wanted), printable(typed), names)};
}

Error none(const Candidates &found, std::string_view typed, Wanted wanted, std::string_view place) {
    const std::vector<std::string_view> names(found.all.begin(), found.all.end());
    const std::string_view what = what_is_wanted(wanted);
    if (names.empty()) return {fmt::format("no {} '{}' in {}: there are none", what, printable(typed), place)};
    std::string_view nearest = nearest_name(typed, names);
    if (nearest.empty()) {  // far from all of them: the newest is a start
        nearest = *std::max_element(names.begin(), names.end());
        return {fmt::format("no {} '{}' in {}; the newest is '{}'", what, printable(typed), place, printable(nearest))};
    }
    return {fmt::format("no {} '{}' in {}; the nearest is '{}'", what, printable(typed), place, printable(nearest))};
}

Result<std::vector<Session>> sessions_to_search(const Arguments &arguments) {
    std::vector<Session> sessions;
    if (const auto wanted = arguments.value("--session")) {
        const auto session = find_session(*wanted);
        if (!session) return session.error();
        sessions.push_back(*session);
        return sessions;
    }
    for (const SessionSummary &summary : list_sessions()) {
        if (const auto session = find_session(summary.id)) sessions.push_back(*session);
    }
    return sessions;
}

}  // namespace

std::string_view trace_id_in_name(std::string_view name) {
    // tr_<digits>_<hex>, behind which '_' or '.' begins what a name adds.
    const std::size_t time = name.find('_');
    const std::size_t hex = time == std::string_view::npos ? time : name.find('_', time + 1);
    return hex == std::string_view::npos ? name.substr(0, name.find('.'))
                                         : name.substr(0, name.find_first_of("_.", hex + 1));
}

std::vector<std::string> records_of_trace(const std::string &folder, std::string_view id, std::string_view ending) {
    std::vector<std::string> names = list_records(folder, ending);
    std::erase_if(names, [&](const std::string &name) { return trace_id_in_name(name) != id; });
    std::stable_sort(names.begin(), names.end(),
                     [](const std::string &a, const std::string &b) { return a.size() < b.size(); });
    for (std::string &name : names) name.insert(0, folder + '/');
    return names;
}

Result<Session> session_of_records(const Arguments &arguments) {
    std::optional<std::string> wanted = arguments.value("--session");
    if (!wanted) wanted = current_session();
    auto session = find_session(wanted.value_or("latest"));
    if (session) bring_in(*session);
    return session;
}

Result<FoundTrace> find_trace(const Arguments &arguments, std::string_view id, Wanted wanted) {
    if (id.empty()) return Error{"an empty id names nothing"};
    const auto sessions = sessions_to_search(arguments);
    if (!sessions) return sessions.error();
    Candidates found;
    for (const Session &session : *sessions) {
        bring_in(session);
        collect(found, session, ids_of_files(session, wanted), id);
    }
    if (found.by_prefix.empty() && wanted == Wanted::anything) {
        for (const Session &session : *sessions) collect(found, session, ids_of_log(session), id);
    }
    const std::vector<FoundTrace> &fitting = found.exact.empty() ? found.by_prefix : found.exact;
    if (fitting.size() == 1) return fitting.front();
    if (fitting.empty()) {
        const auto told = arguments.value("--session");
        return none(found, id, wanted,
                    told ? fmt::format("session {}", printable(sessions->front().id)) : "any session");
    }
    return several(fitting, id, wanted);
}

}  // namespace planloop::cli
