#include "analysis/passes.h"

namespace planloop::analysis {

// Each in a file of its own, detectors/<name>.cpp.
std::unique_ptr<Detector> make_deadlock(const Model &model);
std::unique_ptr<Detector> make_killed_while_holding(const Model &model);
std::unique_ptr<Detector> make_kernel_refused(const Model &model);
std::unique_ptr<Detector> make_unlock_without_lock(const Model &model);
std::unique_ptr<Detector> make_lock_order_inversion(const Model &model);
std::unique_ptr<Detector> make_upgrade_deadlock(const Model &model);
std::unique_ptr<Detector> make_non_atomic_upgrade(const Model &model);
std::unique_ptr<Detector> make_lock_lost_on_close(const Model &model);
std::unique_ptr<Detector> make_lock_file_replaced(const Model &model);
std::unique_ptr<Detector> make_inherited_lock(const Model &model);
std::unique_ptr<Detector> make_long_wait(const Model &model);
std::unique_ptr<Detector> make_long_hold(const Model &model);
std::unique_ptr<Detector> make_convoy(const Model &model);
std::unique_ptr<Detector> make_starvation(const Model &model);
std::unique_ptr<Detector> make_lost_events(const Model &model);
std::unique_ptr<Detector> make_not_traced(const Model &model);

namespace {

constexpr Pass kPasses[] = {
    {"deadlock", kBlocked | kRequestDone | kAcquired | kHoldEnded | kProcessEnded | kChildWait | kRawEvent | kApplied,
     make_deadlock},
    {"kernel_refused", kRequestDone, make_kernel_refused, true},
    {"killed_while_holding", kProcessEnded, make_killed_while_holding},
    {"unlock_without_lock", kNothingUnlocked, make_unlock_without_lock},
    {"lock_order_inversion", kRawEvent | kRequested, make_lock_order_inversion},
    {"upgrade_deadlock", kRawEvent | kRequested, make_upgrade_deadlock},
    {"non_atomic_upgrade", kRequested | kAcquired | kRequestDone, make_non_atomic_upgrade},
    {"lock_lost_on_close", kRawEvent | kHoldEnded, make_lock_lost_on_close},
    {"lock_file_replaced", kBlocked | kAcquired, make_lock_file_replaced},
    {"inherited_lock", kProcessEnded | kBlocked | kHoldEnded, make_inherited_lock},
    {"long_wait", kRequestDone, make_long_wait, true},
    {"long_hold", kHoldEnded, make_long_hold},
    {"convoy", kRequestDone | kHoldEnded, make_convoy},
    {"starvation", kRequestDone, make_starvation},
    {"lost_events", 0, make_lost_events, true},
    {"not_traced", kRawEvent, make_not_traced, true},
};

}  // namespace

std::vector<std::string_view> finding_kinds() {
    std::vector<std::string_view> kinds{"self_deadlock"};  // the deadlock of one
    for (const Pass &pass : kPasses) kinds.emplace_back(pass.name);
    return kinds;
}

Passes::Passes(const Model &model) {
    for (const Pass &pass : kPasses) {
        detectors_.push_back(pass.make(model));
        for (std::size_t place = 0; place < kHooks; ++place)
            if ((pass.hooks >> place & 1) != 0) listeners_[place].push_back(detectors_.back().get());
    }
}

void Passes::requested(const Request &request) {
    each(kRequested, [&](Detector &detector) { detector.requested(request); });
}
void Passes::blocked(Index request) {
    each(kBlocked, [&](Detector &detector) { detector.blocked(request); });
}
void Passes::request_done(Index request, const RequestEnd &end) {
    each(kRequestDone, [&](Detector &detector) { detector.request_done(request, end); });
}
void Passes::acquired(Index hold) {
    each(kAcquired, [&](Detector &detector) { detector.acquired(hold); });
}
void Passes::hold_ended(Index hold, const HoldEnd &end) {
    each(kHoldEnded, [&](Detector &detector) { detector.hold_ended(hold, end); });
}
void Passes::process_ended(Index process, const ProcessEnd &end) {
    each(kProcessEnded, [&](Detector &detector) { detector.process_ended(process, end); });
}
void Passes::nothing_unlocked(Index lock, const Event &event) {
    each(kNothingUnlocked, [&](Detector &detector) { detector.nothing_unlocked(lock, event); });
}
void Passes::decided(std::uint64_t ticket, Reason reason, EndCertainty certainty) {
    each(kDecided, [&](Detector &detector) { detector.decided(ticket, reason, certainty); });
}
void Passes::child_wait_begun(Index process) {
    each(kChildWait, [&](Detector &detector) { detector.child_wait_begun(process); });
}
void Passes::event(const Event &event) {
    each(kRawEvent, [&](Detector &detector) { detector.event(event); });
}
void Passes::applied(const Event &event) {
    each(kApplied, [&](Detector &detector) { detector.applied(event); });
}

void Passes::finish(Report &report, const SourceNotes &notes) {
    for (std::size_t i = 0; i < detectors_.size(); ++i) {
        const std::size_t before = report.findings.size();
        detectors_[i]->finish(report, notes);
        if (kPasses[i].sure_though_lost || !notes.incomplete()) continue;
        for (std::size_t at = before; at < report.findings.size(); ++at) {
            report.findings[at].certainty = Certainty::possible;
            report.findings[at].summary += " Events of this recording were lost, so it is only possible.";
        }
    }
}

}  // namespace planloop::analysis
