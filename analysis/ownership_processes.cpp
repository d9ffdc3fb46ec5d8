// The part of Ownership that follows processes and descriptors.
#include <algorithm>
#include <cerrno>

#include "analysis/ownership.h"

namespace planloop::analysis {
namespace {

Reason close_reason(std::int64_t cause) noexcept {
    switch (static_cast<wire::CloseCause>(cause)) {
        case wire::CloseCause::exec:
            return Reason::exec;
        case wire::CloseCause::exit:
            return Reason::exit;
        case wire::CloseCause::close:
        case wire::CloseCause::replaced:
        case wire::CloseCause::close_range:
        case wire::CloseCause::stream:
        case wire::CloseCause::unseen:
            break;
    }
    return Reason::close;
}

// A wait status tells an end by exit (its low seven bits are 0) from one by a signal.
Reason death_reason(std::int64_t status) noexcept {
    return status >= 0 && (status & 0x7f) == 0 ? Reason::exit : Reason::killed;
}

}  // namespace

void Ownership::descriptor_closed(const Event &event, Index process) {
    HoldEnd end = ended_by(event, close_reason(event.other));
    if (event.other == static_cast<std::int64_t>(wire::CloseCause::unseen)) end.certainty = EndCertainty::approximate;
    const Index at = model_.table.description_at(process, event.fd);
    Index file = kNone;
    if (event.file != 0)
        file = model_.locks.file(event.file);
    else if (at != kNone)
        file = model_.table.description(at).file;
    // POSIX locks go with any descriptor of the file, whatever it was opened for.
    const Index posix = file == kNone ? kNone : model_.locks.find_lock(wire::Family::posix, file);
    if (posix != kNone) holds_.give_back(posix, process, 0, kEndOfFile, end);
    const Index of_threads = file == kNone ? kNone : model_.locks.find_lock(wire::Family::posix_thread, file);
    if (of_threads != kNone) {
        for (const Index thread : model_.table.process(process).threads) {
            while (holds_.give_back(of_threads, thread, 0, kEndOfFile, end)) {
            }
        }
    }
    if (at != kNone) waits_.before_descriptor_closes(at);
    const Index lost = model_.table.drop_descriptor(process, event.fd);
    if (lost != kNone) description_lost(lost, end);
}

void Ownership::descriptor_duplicated(const Event &event, Index process) {
    Index lost = kNone;
    Index description = model_.table.description_at(process, event.fd);
    if (event.file != 0) description = model_.table.description_of(process, event, model_.locks.file(event.file), lost);
    HoldEnd end = ended_by(event, Reason::close);
    end.certainty = EndCertainty::approximate;
    if (lost != kNone) description_lost(lost, end);
    if (description == kNone) return;
    lost = model_.table.set_descriptor(process, event.other, description, false);
    if (lost != kNone) description_lost(lost, end);
}

void Ownership::sharer_seen(const Event &event, Index process) {
    if (event.other <= 0) return;
    const auto pid = static_cast<std::int32_t>(event.other);
    const auto fd = static_cast<std::int64_t>(event.start);
    if (has_exited(pid, event.speaker)) return;
    Index lost = kNone;
    HoldEnd end = ended_by(event, Reason::close);
    end.image = event.process;
    end.certainty = EndCertainty::approximate;
    if (event.process == 0 && event.description == 0) return parent_seen(event);
    Index sharer = model_.table.find_pid(pid);
    Index description = kNone;
    if (event.process == 0) {  // a supervisor's word, which has no part in it
        // It may have gone by who took the lock. A fork knows which description it is, and so does who locked it. Who
        // used it else has given it a number of its own, without knowing whose it is.
        const Index before = sharer == kNone ? kNone : model_.table.description_at(sharer, fd);
        const bool told = before != kNone && model_.table.description(before).file == model_.locks.file(event.file) &&
                          (model_.table.is_inherited(sharer, fd) || !model_.table.description(before).owned.empty());
        description = told ? before : model_.table.find_description(event.description);
    } else {
        description = model_.table.description_at(process, event.fd);
        if (event.file != 0) {
            description = model_.table.description_of(process, event, model_.locks.file(event.file), lost);
        }
    }
    if (lost != kNone) description_lost(lost, end);
    if (description == kNone) return;
    if (sharer == kNone) sharer = model_.table.add_process(pid);
    Process &known = model_.table.process(sharer);
    if (known.name_image == 0 && event.speaker != 0) {
        known.name_image = event.speaker;
        known.start_time = model_.source.process(event.speaker).start_time;
    } else if (known.name_image == 0) {
        known.name_image = event.process;  // a child that was spawned and has not spoken: named as its parent
    }
    if (model_.table.description_at(sharer, fd) == description) return;
    lost = model_.table.set_descriptor(sharer, fd, description, true);
    if (lost != kNone) description_lost(lost, end);
}

// A process that is not recorded and shares nothing, but stands between two that are recorded.
void Ownership::parent_seen(const Event &event) {
    const ProcessInfo &info = model_.source.process(event.speaker);
    if (info.pid <= 0 || info.parent_pid <= 0 || info.pid == info.parent_pid) return;
    Index process = model_.table.find_pid(info.pid);
    if (process == kNone) process = model_.table.add_process(info.pid);
    Process &known = model_.table.process(process);
    if (known.image != 0) return;
    if (known.parent_pid == 0) model_.table.set_parent(process, info.parent_pid);
    if (known.start_time == 0) known.start_time = info.start_time;
    if (known.name_image == 0) known.name_image = event.speaker;
}

void Ownership::process_forked(const Event &event, Index process) {
    if (event.other <= 0) {
        model_.table.process(process).nameless_children = true;
        return;
    }
    const auto pid = static_cast<std::int32_t>(event.other);
    Index child = model_.table.find_pid(pid);
    if (child != kNone && child != process) {
        // The child may have been heard of before; another process under its pid has ended unseen.
        if (model_.table.process(child).parent_pid == event.pid) return;
        if (model_.table.process(child).image == 0 && model_.table.process(child).parent_pid == 0) {
            model_.table.set_parent(child, event.pid);
            model_.table.process(child).forked = true;
            return model_.table.copy_descriptors(process, child);
        }
        end_process(child, {event.t_ns, Reason::killed, EndCertainty::approximate, -1});
        child = kNone;
    }
    if (child != kNone) return;
    // A child that shares nothing is no news until it speaks.
    if (model_.table.process(process).descriptors.empty()) return;
    child = model_.table.add_process(pid);
    model_.table.set_parent(child, event.pid);
    model_.table.process(child).forked = true;
    model_.table.process(child).name_image = model_.table.process(process).name_image;
    model_.table.copy_descriptors(process, child);
}

void Ownership::process_started(const Event &event) {
    const ProcessInfo &info = model_.source.process(event.process);
    const std::int32_t pid = info.pid != 0 ? info.pid : event.pid;
    Index process = model_.table.find_pid(pid);
    if (process != kNone) {
        const Process &known = model_.table.process(process);
        const bool same_start = known.start_time == 0 || info.start_time == 0 || known.start_time == info.start_time;
        const bool follows = known.image == 0 || info.replaced_by_exec || known.image == event.process ||
                             (known.start_time != 0 && known.start_time == info.start_time);
        if (!same_start || !follows) {
            end_process(process, {event.t_ns, Reason::killed, EndCertainty::approximate, -1});
            process = kNone;
        }
    }
    if (process == kNone) {
        process = model_.table.add_process(pid);
        // A fork is recorded with the child's pid whenever there is something to share. What the parent has now may be
        // younger than the child, so it is taken only for a child whose pid was not known.
        const Index parent = model_.table.find_image(info.parent_process);
        if (parent != kNone && parent != process && model_.table.process(parent).nameless_children)
            model_.table.copy_descriptors(parent, process);
    } else if (model_.table.process(process).image != 0 && !only_new_image_spoke(process)) {
        process_replaced(process, event);
    }
    model_.table.process(process).execs = false;
    model_.table.count(process);
    model_.table.process(process).out_of_sight = false;
    model_.table.attach(process, event.process, info);
    if (!model_.table.process(process).undecided.empty()) holds_.decide_all(model_.table.process(process), nullptr);
}

// A program may write to planloop.jsonl before it has cause to write to the spool: then it is it who waits by now, not
// the program that it replaced.
bool Ownership::only_new_image_spoke(Index index) const {
    const Process &process = model_.table.process(index);
    return process.execs && std::all_of(process.threads.begin(), process.threads.end(),
                                        [&](Index thread) { return model_.table.thread(thread).hearsay; });
}

// exec ends all threads but one and forgets every number; descriptors and POSIX locks stay. What is closed on exec was
// recorded as such.
void Ownership::process_replaced(Index process, const Event &event) {
    waits_.before_process_changes(process);
    abandon_requests(process, event.t_ns);
    for (const Index thread : model_.table.process(process).threads)
        holds_.drop_all(model_.table.thread(thread).owned, ended_by(event, Reason::exec));
    model_.table.release_threads(process);
    for (Descriptor &descriptor : model_.table.process(process).descriptors) descriptor.inherited = true;
    model_.table.process(process).execs = event.kind == EventKind::process_exec;
}

void Ownership::process_left_sight(const Event &event) {
    const Index process = model_.table.find_pid(event.pid);
    if (process != kNone) model_.table.process(process).out_of_sight = true;
}

void Ownership::process_exiting(const Event &event, Index process) {
    exited_[next_exited_] = {model_.table.process(process).pid, model_.table.process(process).start_time};
    next_exited_ = (next_exited_ + 1) % exited_.size();
    end_process(process, {event.t_ns, Reason::exit, EndCertainty::exact, (event.other & 0xff) << 8});
}

// `image`: what was heard of the process that has the pid now.
bool Ownership::has_exited(std::int32_t pid, std::uint32_t image) const {
    const std::uint64_t start_time = image == 0 ? 0 : model_.source.process(image).start_time;
    return start_time != 0 && std::any_of(exited_.begin(), exited_.end(), [&](const Exited &one) {
               return one.pid == pid && one.start_time == start_time;
           });
}

void Ownership::process_ended(const Event &event) {
    Index process = event.process != 0 ? model_.table.find_image(event.process) : kNone;
    if (process == kNone) process = model_.table.find_pid(event.pid);
    if (process == kNone) return;
    const Process &known = model_.table.process(process);
    if (event.start != 0 && known.start_time != 0 && known.start_time != event.start) return;  // an earlier bearer
    // Most programs end by exit; only where exit would have been recorded does its absence tell of a kill.
    const bool silent_exit = known.out_of_sight && event.other < 0;
    const Reason reason = silent_exit ? Reason::exit : death_reason(event.other);
    const bool seen = event.other != wire::kGoneUnwatched;
    end_process(process, {event.t_ns, reason, seen ? EndCertainty::exact : EndCertainty::approximate, event.other});
}

void Ownership::end_process(Index index, const ProcessEnd &end) {
    observer_.process_ended(index, end);
    waits_.before_process_changes(index);
    Process &process = model_.table.process(index);
    const bool explains = end.reason != Reason::exit || end.status >= 0 || process.out_of_sight;
    holds_.decide_all(process, explains ? &end : nullptr);
    HoldEnd hold_end{end.t_ns, end.reason, end.certainty, 0, process.name_image, 0, process.pid, process.pid};
    abandon_requests(index, end.t_ns);
    for (const Index thread : process.threads) holds_.drop_all(model_.table.thread(thread).owned, hold_end);
    holds_.drop_all(process.owned, hold_end);
    while (!process.descriptors.empty()) {
        const Index lost = model_.table.drop_descriptor(index, process.descriptors.back().fd);
        if (lost != kNone) description_lost(lost, hold_end);
    }
    model_.table.release_threads(index);
    model_.table.release_process(index);
}

void Ownership::child_wait(const Event &event, Index process) {
    const Index thread = model_.table.thread_of(event, process);
    const bool waited_for = waits_.culprits().settle_behind(process);
    if (event.kind == EventKind::child_wait_ended) {
        model_.table.end_child_wait(thread);
        return child_reaped(event);
    }
    model_.table.begin_child_wait(thread, event.other);
    if (waited_for) waits_.culprits().mark_waiting(process);
    observer_.child_wait_begun(process);
}

// Whoever was told that a child has ended knows it for sure, and often before a supervisor does: what it does next must
// not seem to happen while that child still shares its locks.
void Ownership::child_reaped(const Event &event) {
    const auto pid = static_cast<std::int64_t>(event.start);
    if (pid <= 0 || pid > 0x7fffffff) return;
    const Index index = model_.table.find_pid(static_cast<std::int32_t>(pid));
    if (index == kNone) return;
    const Process &child = model_.table.process(index);
    std::int32_t parent = child.parent_pid;
    if (parent == 0 && child.name_image != 0) parent = model_.source.process(child.name_image).parent_pid;
    if (parent != event.pid) return;  // the pid of another PID namespace
    // A call that did not sleep may come long after the end.
    constexpr std::int64_t kSleptNs = 50'000;
    const bool slept = event.duration_ns >= kSleptNs;
    end_process(index, {event.t_ns, child.out_of_sight ? Reason::exit : Reason::killed,
                        slept ? EndCertainty::exact : EndCertainty::approximate, -1});
}

void Ownership::finish(const Alive &alive) {
    for (Index index = 0; index < model_.table.process_end(); ++index) {
        Process &process = model_.table.process(index);
        if (process.pid == 0) continue;
        bool matters = !process.descriptors.empty() || !process.owned.empty() || !process.undecided.empty();
        for (const Index thread : process.threads) {
            const Thread &one = model_.table.thread(thread);
            matters = matters || one.request != kNone || !one.owned.empty();
        }
        // Of a sharer that was only heard of, nobody knows whether its exit would have been recorded.
        const bool exit_is_told = !process.out_of_sight && (process.image != 0 || process.forked);
        if (matters && alive && !alive(process.pid, process.start_time))
            end_process(index,
                        {model_.now_ns, exit_is_told ? Reason::killed : Reason::exit, EndCertainty::approximate, -1});
        else if (!process.undecided.empty())
            holds_.decide_all(process, nullptr);
        for (const Index thread : process.threads) waits_.expire_polls(thread);
    }
}

}  // namespace planloop::analysis
