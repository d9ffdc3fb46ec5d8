#include "analysis/export/call_table.h"

#include <algorithm>
#include <charconv>

#include "analysis/call_site.h"

namespace planloop::analysis {
namespace {

std::uint64_t entry_number(const std::string &id) {
    std::uint64_t number = 0;
    std::from_chars(id.data(), id.data() + id.size(), number, 16);
    return number;
}

std::int64_t length_of(const Call &call) {
    return call.wait_ns + call.hold_ns;
}

}  // namespace

std::uint32_t CallTable::thread_of(std::int32_t pid, std::int32_t tid) {
    const std::uint64_t key = std::uint64_t{static_cast<std::uint32_t>(pid)} << 32 | static_cast<std::uint32_t>(tid);
    const auto [at, made] = thread_index_.try_emplace(key, static_cast<std::uint32_t>(threads_.size()));
    if (made) threads_.push_back({pid, tid});
    return at->second;
}

std::uint32_t CallTable::image_of(const TimelineEntry &entry) {
    const auto [at, made] = image_index_.try_emplace(std::pair(entry.process, entry.command_line),
                                                     static_cast<std::uint32_t>(images_.size()));
    if (made) images_.push_back({entry.process, entry.command_line});
    return at->second;
}

std::uint32_t CallTable::lock_of(const TimelineEntry &entry) {
    const auto [at, made] = lock_index_.try_emplace(entry.lock, static_cast<std::uint32_t>(locks_.size()));
    if (made) locks_.push_back({entry.lock, entry.path, entry.family});
    return at->second;
}

std::uint32_t CallTable::text_of(const std::string &text) {
    if (text.empty()) return 0;
    const auto [at, made] = text_index_.try_emplace(text, static_cast<std::uint32_t>(texts_.size()));
    if (made) texts_.push_back(text);
    return at->second;
}

std::uint32_t CallTable::site_of(const CallSite *site) {
    if (site == nullptr) return 0;
    const auto [at, made] = site_index_.try_emplace(site, 0);
    if (made) at->second = text_of(call_site_words(*site));
    return at->second;
}

void CallTable::count(const TimelineEntry &entry) {
    ProcessSums &sums = processes_[entry.pid];
    if (sums.process.empty() || entry.kind == EventKind::lock_acquired) {
        sums.process = entry.process;
        sums.command_line = entry.command_line;
    }
    switch (entry.kind) {
        case EventKind::lock_acquired:
            ++sums.acquisitions;
            if (!entry.blocked_by.empty()) ++sums.contended;
            sums.wait_ns += entry.wait_ns;
            break;
        case EventKind::lock_failed:
            ++sums.failed;
            sums.wait_ns += entry.wait_ns;
            break;
        case EventKind::lock_released:
            sums.hold_ns += entry.hold_ns;
            break;
        default:
            break;
    }
}

void CallTable::describe(Call &call, const TimelineEntry &entry) {
    call.start = entry.start;
    call.len = entry.len;
    call.thread = thread_of(entry.pid, entry.tid);
    call.image = image_of(entry);
    call.lock = lock_of(entry);
    call.trace = text_of(entry.trace_id);
    call.operation = text_of(entry.operation);
    call.site = site_of(entry.call_site);
    call.mode = entry.mode;
    call.blockers.clear();
    for (const Blocker &blocker : entry.blocked_by)
        call.blockers.emplace_back(thread_of(blocker.pid, blocker.tid), blocker.ns);
}

void CallTable::add(const TimelineEntry &entry) {
    count(entry);
    const std::uint64_t number = entry_number(entry.lock_entry_id);
    Call &call = open_[number];
    call.entry = number;
    switch (entry.kind) {
        case EventKind::lock_requested:
            call.begin_ns = entry.t_ns;
            call.requested = true;
            describe(call, entry);
            return;
        case EventKind::lock_acquired:
        case EventKind::lock_failed:
            call.outcome = entry.kind == EventKind::lock_acquired ? CallOutcome::acquired : CallOutcome::failed;
            if (!call.requested) call.begin_ns = entry.t_ns - entry.wait_ns;
            call.wait_ns = entry.wait_ns;
            call.error = entry.error;
            call.tries = entry.tries;
            call.open = call.outcome == CallOutcome::acquired;
            describe(call, entry);
            if (call.outcome == CallOutcome::acquired) return;
            break;
        case EventKind::lock_released:
            if (call.outcome != CallOutcome::acquired) break;  // taken before the recording: a release without a row
            call.hold_ns = std::max(call.hold_ns, entry.t_ns - call.begin_ns - call.wait_ns);
            call.reason = text_of(entry.reason);
            call.approximate = entry.certainty == EndCertainty::approximate;
            call.open = false;
            // An unlock of a part leaves the rest held, whose end is still to come.
            if (entry.start != call.start || entry.len != call.len) return;
            break;
        default:
            break;
    }
    if (call.outcome != CallOutcome::waiting) complete(std::move(call));
    open_.erase(number);
}

void CallTable::complete(Call &&call) {
    done_.push_back(std::move(call));
    if (done_.size() > most_calls_) leave_out_the_shortest();
}

void CallTable::leave_out_the_shortest() {
    const auto middle = done_.begin() + static_cast<std::ptrdiff_t>(done_.size() / 2);
    std::nth_element(done_.begin(), middle, done_.end(),
                     [](const Call &a, const Call &b) { return length_of(a) < length_of(b); });
    for (auto call = done_.begin(); call != middle; ++call)
        longest_left_out_ns_ = std::max(longest_left_out_ns_, length_of(*call));
    left_out_ += static_cast<std::uint64_t>(middle - done_.begin());
    done_.erase(done_.begin(), middle);
}

void CallTable::finish(std::int64_t end_ns) {
    for (auto &[number, call] : open_) {
        if (call.outcome == CallOutcome::waiting) {
            call.open = true;
            call.wait_ns = std::max<std::int64_t>(end_ns - call.begin_ns, 0);
        } else if (call.open) {
            call.hold_ns = std::max<std::int64_t>(end_ns - call.begin_ns - call.wait_ns, 0);
        }
        done_.push_back(std::move(call));
    }
    open_.clear();
    std::sort(done_.begin(), done_.end(), [](const Call &a, const Call &b) {
        return std::tie(a.begin_ns, a.entry) < std::tie(b.begin_ns, b.entry);
    });
}

}  // namespace planloop::analysis
