// What a detector sees. Ownership tells what happens, in time order, and a detector draws its conclusions; a new one is
// one file and one line in the pass table (passes.cpp).
//
// Each hook is called while the model still shows the state *before* the change for ends (a request that is done, a
// hold that ends, a process that dies) and *after* it for beginnings. References are valid during the call only.
// Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_DETECTOR_H
#define PLANLOOP_ANALYSIS_DETECTOR_H

#include <cstdint>
#include <memory>

#include "analysis/model.h"
#include "analysis/report.h"

namespace planloop::analysis {

// Why a hold ended. `undecided` while only later events can tell; Observer::decided names the reason then.
enum class Reason : std::uint8_t { unlock, close, exit, exec, killed, converted, lost, undecided };
const char *reason_name(Reason reason) noexcept;

struct HoldEnd {
    std::int64_t t_ns = 0;
    Reason reason{};
    EndCertainty certainty = EndCertainty::exact;
    std::uint64_t ticket = 0;             // names the end while it is undecided
    std::uint32_t image = 0, stream = 0;  // who ended it
    std::int32_t pid = 0, tid = 0;
    std::uint32_t site = 0;  // of the unlock call
};

enum class Outcome : std::uint8_t { acquired, failed, abandoned };  // abandoned: its process or image is gone

struct RequestEnd {
    std::int64_t t_ns = 0;
    Outcome outcome{};
    int error = 0;
    std::int64_t call_ns = 0;  // time spent in this call
    std::int64_t wait_ns = 0;  // the same, or since the first of the tries that were folded
};

struct WaitEnd {
    std::int64_t t_ns = 0, wait_ns = 0;
    Outcome outcome{};
    int error = 0;  // of the call or the last try; 0 and abandoned: still waiting when the recording ended
};

struct ProcessEnd {
    std::int64_t t_ns = 0;
    Reason reason{};  // exit or killed
    EndCertainty certainty = EndCertainty::exact;
    std::int64_t status = -1;  // wait status; -1: not known
};

// Words for finite use of a detector's hooks, so that the others cost nothing.
enum Hook : unsigned {
    kBlocked = 1,
    kRequestDone = 2,
    kAcquired = 4,
    kHoldEnded = 8,
    kProcessEnded = 16,
    kNothingUnlocked = 32,
    kRawEvent = 64,
    kDecided = 128,
    kChildWait = 256,
    kRequested = 512,
    kApplied = 1024,
};
inline constexpr std::size_t kHooks = 11;

class Observer {
  public:
    virtual ~Observer() = default;
    // Any lock call begins; what a conversion drops is still held. It may have no owner, or arguments that mean
    // nothing.
    virtual void requested(const Request & /*request*/) {}
    virtual void blocked(Index /*request*/) {}  // a blocking call begins and something stands in its way
    virtual void request_done(Index /*request*/, const RequestEnd & /*end*/) {}
    // A wait is over, or the recording is: each one once, as LockRow::wait sums them up. A series of failed tries is
    // one wait, told of when it does not go on.
    virtual void waited(const Request & /*request*/, const WaitEnd & /*end*/) {}
    virtual void acquired(Index /*hold*/) {}
    virtual void hold_ended(Index /*hold*/, const HoldEnd & /*end*/) {}
    virtual void process_ended(Index /*process*/, const ProcessEnd & /*end*/) {}
    virtual void nothing_unlocked(Index /*lock*/, const Event & /*event*/) {}
    virtual void decided(std::uint64_t /*ticket*/, Reason /*reason*/, EndCertainty /*certainty*/) {}
    virtual void child_wait_begun(Index /*process*/) {}
    virtual void event(const Event & /*event*/) {}    // each one that is no lock call, before it is applied
    virtual void applied(const Event & /*event*/) {}  // the same, after it
};

class Detector : public Observer {
  public:
    explicit Detector(const Model &model) : model_(model) {}
    // Adds its findings; `report.from_utc_ns` and `to_utc_ns` are set, times in findings count from the former.
    virtual void finish(Report &report, const SourceNotes &notes) = 0;

  protected:
    const Model &model() const { return model_; }

  private:
    const Model &model_;
};

struct Pass {
    const char *name;
    unsigned hooks;
    std::unique_ptr<Detector> (*make)(const Model &model);
    // What it tells stands in the trace and rests on nothing's absence, so events that were lost cannot overturn it.
    bool sure_though_lost = false;
};

}  // namespace planloop::analysis

#endif
