// The lock calls of a session as a table with one row a call, joined from the timeline's entries: what the report page
// draws. Texts are interned, so that a row is a handful of numbers.
//
// Memory is bounded by `most_calls`: when there are more, the shortest (waited and held together) are left out, and the
// table says how many and how short they were. They are too thin to be seen anywhere but at the closest zoom, and every
// sum of the page comes from the Report, which counts them all.
//
// Times are nanoseconds since the start of the recording. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_EXPORT_CALL_TABLE_H
#define PLANLOOP_ANALYSIS_EXPORT_CALL_TABLE_H

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <utility>
#include <vector>

#include "analysis/report.h"

namespace planloop::analysis {

enum class CallOutcome : std::uint8_t { waiting, acquired, failed };

struct Call {
    std::int64_t begin_ns = 0;
    std::int64_t wait_ns = 0;
    std::int64_t hold_ns = 0;
    std::uint64_t start = 0, len = 0;  // byte range; len 0: to the end of the file
    std::uint64_t entry = 0;           // lock_entry_id
    // Places in the table's lists.
    std::uint32_t thread = 0, image = 0, lock = 0, trace = 0, operation = 0, reason = 0, site = 0;
    int error = 0;
    std::uint32_t tries = 1;
    CallOutcome outcome = CallOutcome::waiting;
    wire::Mode mode{};
    bool requested = false;    // its request was seen, and with it the time of its begin
    bool open = false;         // held, or waited for, at the end of the recording
    bool approximate = false;  // when the hold ended is not known exactly
    std::vector<std::pair<std::uint32_t, std::int64_t>> blockers;  // thread, ns
};

class CallTable {
  public:
    struct Thread {
        std::int32_t pid, tid;  // pid 0: nobody that was traced
    };
    struct Image {  // what ran: one process may run several programs, one after the other
        std::string process, command_line;
    };
    struct LockName {
        std::string id, path;
        wire::Family family;
    };
    struct ProcessSums {  // over all its lock calls, also those that are left out
        std::string process, command_line;
        std::uint64_t acquisitions = 0, contended = 0, failed = 0;
        std::int64_t wait_ns = 0, hold_ns = 0;
    };

    explicit CallTable(std::size_t most_calls) : most_calls_(most_calls) {}

    void add(const TimelineEntry &entry);
    // What is still open lasts until `end_ns`; from then on calls() is in order of begin_ns.
    void finish(std::int64_t end_ns);

    const std::vector<Call> &calls() const { return done_; }
    const std::vector<Thread> &threads() const { return threads_; }
    const std::vector<Image> &images() const { return images_; }
    const std::vector<LockName> &locks() const { return locks_; }
    const std::vector<std::string> &texts() const {
        return texts_;
    }  // trace ids, operations, reasons, call sites; 0: ''

    const std::map<std::int32_t, ProcessSums> &processes() const { return processes_; }  // by pid

    std::uint64_t left_out() const { return left_out_; }
    std::int64_t longest_left_out_ns() const { return longest_left_out_ns_; }

  private:
    std::uint32_t thread_of(std::int32_t pid, std::int32_t tid);
    std::uint32_t image_of(const TimelineEntry &entry);
    std::uint32_t lock_of(const TimelineEntry &entry);
    std::uint32_t text_of(const std::string &text);
    std::uint32_t site_of(const CallSite *site);
    void count(const TimelineEntry &entry);
    void describe(Call &call, const TimelineEntry &entry);
    void complete(Call &&call);
    void leave_out_the_shortest();

    std::size_t most_calls_;
    std::unordered_map<std::uint64_t, Call> open_;  // by lock_entry_id
    std::vector<Call> done_;
    std::vector<Thread> threads_;
    std::vector<Image> images_;
    std::vector<LockName> locks_;
    std::vector<std::string> texts_{std::string()};
    std::unordered_map<std::uint64_t, std::uint32_t> thread_index_;
    std::map<std::pair<std::string, std::string>, std::uint32_t> image_index_;
    std::unordered_map<std::string, std::uint32_t> lock_index_, text_index_;
    std::unordered_map<const CallSite *, std::uint32_t> site_index_;  // into texts_
    std::map<std::int32_t, ProcessSums> processes_;
    std::uint64_t left_out_ = 0;
    std::int64_t longest_left_out_ns_ = 0;
};

}  // namespace planloop::analysis

#endif
