#include "analysis/ownership.h"

#include <cerrno>

#include "analysis/saturate.h"

namespace planloop::analysis {
namespace {

bool usable(const Event &event) noexcept {
    return (event.flags & wire::kBadArguments) == 0;
}

bool refused(const Request &request, int error) noexcept {
    return !request.blocking && (error == EAGAIN || error == EACCES);
}

}  // namespace

void Ownership::apply(const Event &event) {
    model_.now_ns = event.t_ns;
    take_in(event);
    waits_.event_over();
    if (!is_lock_call(event.kind)) observer_.applied(event);
}

void Ownership::take_in(const Event &event) {
    if (!is_lock_call(event.kind)) observer_.event(event);
    if (event.kind == EventKind::not_traced) return process_left_sight(event);
    if (event.kind == EventKind::process_started) return process_started(event);
    if (event.kind == EventKind::process_ended) return process_ended(event);

    const Index process = model_.table.process_of(event);
    // Whoever speaks is alive, so what it lost before it lost in another way.
    Process &about = model_.table.process(process);
    if (!about.undecided.empty()) holds_.decide_all(about, nullptr);

    switch (event.kind) {
        case EventKind::lock_requested:
            return lock_requested(event, process);
        case EventKind::lock_acquired:
            return lock_acquired(event, process);
        case EventKind::lock_failed:
            return lock_failed(event, process);
        case EventKind::lock_released:
            return lock_released(event, process);
        case EventKind::descriptor_closed:
            return descriptor_closed(event, process);
        case EventKind::descriptor_duplicated:
            return descriptor_duplicated(event, process);
        case EventKind::sharer_seen:
            return sharer_seen(event, process);
        case EventKind::process_forked:
            return process_forked(event, process);
        case EventKind::process_exec:
            return process_replaced(process, event);
        case EventKind::process_exiting:
            return process_exiting(event, process);
        case EventKind::child_wait_begun:
        case EventKind::child_wait_ended:
            return child_wait(event, process);
        case EventKind::process_started:
        case EventKind::process_ended:
        case EventKind::not_traced:
        case EventKind::child_made:
            return;
    }
}

HoldEnd Ownership::ended_by(const Event &event, Reason reason) const {
    const std::uint32_t image = event.speaker != 0 ? event.speaker : event.process;
    return {event.t_ns, reason,    EndCertainty::exact, 0, image, model_.table.stream_of(event),
            event.pid,  event.tid, event.site};
}

// Who owns what a lock call takes. Its descriptor is looked up for every family: a close of it ends POSIX locks too.
Index Ownership::owner_of(const Event &event, Index process, Index thread, Index file) {
    if (!model_.locks.file_at(file).known) return kNone;
    const wire::Owner kind = owner_kind(event.family);
    if (kind == wire::Owner::thread) return thread;
    if (kind == wire::Owner::process && event.fd < 0) return process;
    Index lost = kNone;
    const Index description = model_.table.description_of(process, event, file, lost);
    if (lost != kNone) {
        HoldEnd end = ended_by(event, Reason::close);
        end.certainty = EndCertainty::approximate;
        description_lost(lost, end);
    }
    return kind == wire::Owner::process ? process : description;
}

Index Ownership::open_request(const Event &event, Index process) {
    const Index thread = model_.table.thread_of(event, process);
    const Index file = model_.locks.file(event.file);
    const Index lock = model_.locks.lock(event.family, file);
    const Index owner = owner_of(event, process, thread, file);
    return waits_.begin(event, process, thread, lock, owner);
}

void Ownership::lock_requested(const Event &event, Index process) {
    const Index index = open_request(event, process);
    Request &request = model_.requests[index];
    observer_.requested(request);
    if (request.owner == kNone || !usable(event)) return;
    if (request.family == wire::Family::flock) {
        const wire::Mode before = holds_.mode_of(request.lock, request.owner);
        if (before != wire::Mode::none && before != request.mode) {
            HoldEnd end = ended_by(event, Reason::undecided);
            end.ticket = request.ticket = holds_.new_ticket();
            holds_.give_back(request.lock, request.owner, 0, kEndOfFile, end);
        }
    }
    if (request.blocking && model_.as_waiter(request).obstacles > 0) observer_.blocked(index);
}

void Ownership::lock_acquired(const Event &event, Index process) {
    const Index thread = model_.table.thread_of(event, process);
    Index index = waits_.find(thread, event.entry);
    if (index == kNone) {  // the request was lost
        Event begin = event;
        begin.t_ns -= event.duration_ns;
        index = open_request(begin, process);
    }
    Request &request = model_.requests[index];
    if (request.ticket != 0) holds_.decide(request.ticket, Reason::converted, EndCertainty::exact);
    if (request.owner != kNone) holds_.evict(request);
    RequestEnd end{event.t_ns, Outcome::acquired, 0, event.t_ns - request.call_ns, 0};
    if (event.duration_ns > 0) end.call_ns = event.duration_ns;
    end.wait_ns = end.call_ns;
    add_saturated(end.wait_ns, request.call_ns - request.since_ns);
    waits_.conclude(index, end);

    Lock &lock = model_.locks[request.lock];
    ++lock.acquisitions;
    if (request.contended) ++lock.contended;
    waits_.count(request, {end.t_ns, end.wait_ns, end.outcome, 0});
    if (request.owner != kNone && owner_kind(request.family) != wire::Owner::thread)
        holds_.give_back(request.lock, request.owner, request.first, request.last, ended_by(event, Reason::converted));
    observer_.request_done(index, end);
    // As long as the request is listed, the hold would stand in its own way.
    waits_.withdraw(index);
    if (request.owner != kNone) holds_.take(request);
    model_.requests.release(index);
}

void Ownership::lock_failed(const Event &event, Index process) {
    const Index thread = model_.table.thread_of(event, process);
    Index index = waits_.find(thread, event.entry);
    if (index == kNone) {
        Event begin = event;
        begin.t_ns -= event.duration_ns;
        index = open_request(begin, process);
    }
    Request &request = model_.requests[index];
    if (request.ticket != 0) holds_.decide(request.ticket, Reason::lost, EndCertainty::exact);
    request.ticket = 0;
    RequestEnd end{event.t_ns, Outcome::failed, event.error, event.t_ns - request.call_ns, 0};
    if (event.duration_ns > 0) end.call_ns = event.duration_ns;
    end.wait_ns = end.call_ns;
    waits_.conclude(index, end);
    ++model_.locks[request.lock].failed;
    observer_.request_done(index, end);
    if (request.owner != kNone && refused(request, event.error)) {
        waits_.park(index, event.t_ns);
        return;
    }
    if (request.tries > 1) add_saturated(end.wait_ns, request.call_ns - request.since_ns);
    waits_.count(request, {end.t_ns, end.wait_ns, end.outcome, end.error});
    waits_.end(index);
}

// An unlock that failed ends nothing and waited for nothing, but it is a call that was made and failed.
void Ownership::unlock_failed(const Event &event, Index process) {
    const Index thread = model_.table.thread_of(event, process);
    const Index lock = model_.locks.lock(event.family, model_.locks.file(event.file));
    const Index index = waits_.begin(event, process, thread, lock, kNone);
    ++model_.locks[lock].failed;
    observer_.requested(model_.requests[index]);
    observer_.request_done(index, {event.t_ns, Outcome::failed, event.error, 0, 0});
    waits_.end(index);
}

void Ownership::lock_released(const Event &event, Index process) {
    if (event.error != 0) return unlock_failed(event, process);
    if (!usable(event)) return;
    const Index thread = model_.table.thread_of(event, process);
    const Index file = model_.locks.file(event.file);
    const Index owner = owner_of(event, process, thread, file);
    if (owner == kNone) return;
    const Index lock = model_.locks.lock(event.family, file);
    const bool any = holds_.give_back(lock, owner, event.start, last_byte(event.start, event.len),
                                      ended_by(event, Reason::unlock), event.entry);
    if (!any) observer_.nothing_unlocked(lock, event);
}

void Ownership::description_lost(Index description, const HoldEnd &end) {
    holds_.drop_all(model_.table.description(description).owned, end);
    model_.table.release_description(description);
}

void Ownership::request_over(Index index, const RequestEnd &end) {
    Request &request = model_.requests[index];
    if (request.ticket != 0) holds_.decide(request.ticket, Reason::lost, EndCertainty::exact);
    waits_.conclude(index, end);
    observer_.request_done(index, end);
    waits_.count(request, {end.t_ns, end.wait_ns, end.outcome, end.error});
    waits_.end(index);
}

void Ownership::abandon_requests(Index process, std::int64_t t_ns) {
    for (const Index thread : model_.table.process(process).threads) {
        waits_.expire_polls(thread);
        while (model_.table.thread(thread).request != kNone) {
            const Index request = model_.table.thread(thread).request;
            const std::int64_t call_ns = t_ns - model_.requests[request].call_ns;
            request_over(request, {t_ns, Outcome::abandoned, ECANCELED, call_ns, call_ns});
        }
    }
}

}  // namespace planloop::analysis
