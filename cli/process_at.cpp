#include "cli/process_at.h"

#include <map>
#include <utility>

#include "analysis/render/names.h"
#include "analysis/report.h"
#include "analysis/source/event_source.h"

namespace planloop::cli {

ProcessAtCrash process_at(const Session &session, std::int32_t pid, std::int32_t tid, std::int64_t utc_ns) {
    using analysis::EventKind;
    ProcessAtCrash process;
    const auto source = analysis::open_session(session);
    if (!source) return process;
    std::map<std::uint64_t, ThreadLock> held, awaited;  // by lock call
    const auto look = [&](const analysis::TimelineEntry &entry) {
        if (entry.pid != pid || entry.utc_ns > utc_ns) return;
        process.trace_id = entry.trace_id;
        process.operation = entry.operation;
        ThreadLock lock;
        lock.family = analysis::family_name(entry.family);
        lock.path = entry.path.empty() ? entry.lock : entry.path;
        lock.shared = entry.mode == wire::Mode::shared;
        lock.since_utc_ns = entry.utc_ns;
        if (entry.kind == EventKind::lock_requested && entry.tid == tid) awaited[entry.entry] = lock;
        if (entry.kind != EventKind::lock_requested) awaited.erase(entry.entry);
        if (entry.kind == EventKind::lock_acquired) held[entry.entry] = lock;
        if (entry.kind == EventKind::lock_released) held.erase(entry.entry);
    };
    analysis::AnalysisOptions options;
    options.session = session.id;
    static_cast<void>(analysis::analyse(**source, options, look));
    for (auto &[entry, lock] : held) process.locks.held.push_back(std::move(lock));
    for (auto &[entry, lock] : awaited) process.locks.awaited.push_back(std::move(lock));
    return process;
}

}  // namespace planloop::cli
