// Processes, their threads, and which open file description stands behind which descriptor of which process:
// that decides who holds a flock or OFD lock, and when the last of them lets go.
//
// A process is a pid and a start time; it lives through exec as several images. A description has one number in the
// image that first locked through it, but an image that inherited the descriptor over exec cannot know that number and
// gives it another one. So a descriptor that was inherited and then used under a new number makes the two numbers
// aliases. A descriptor that was not inherited and now names another description was closed behind our back.
//
// Holds only what is alive. Threads: externally synchronised. References stay valid until the object is released.
#ifndef PLANLOOP_ANALYSIS_PROCESS_TABLE_H
#define PLANLOOP_ANALYSIS_PROCESS_TABLE_H

#include <array>
#include <cstdint>
#include <vector>

#include "analysis/event.h"
#include "analysis/flat_map.h"

namespace planloop::analysis {

struct Thread {
    static constexpr std::size_t kPolls = 4;
    static constexpr std::array<Index, kPolls> kNoPolls{kNone, kNone, kNone, kNone};

    std::uint32_t stream = 0;
    std::int32_t tid = 0;
    std::uint64_t key = 0;
    std::uint32_t other_stream = 0;  // the same thread's in planloop.jsonl, or in the spool if `stream` is the former's
    bool hearsay = false;            // `stream` is one of planloop.jsonl
    Index process = kNone;
    Index request = kNone;                       // innermost open lock call
    std::array<Index, kPolls> polls = kNoPolls;  // failed tries that may go on, newest first
    std::vector<Index> owned;                    // Ranges of thread-owned families
    bool waits_for_child = false;
    std::int64_t child = 0;  // as waitpid's pid argument

    void clear();
};

struct Descriptor {
    std::int64_t fd;
    Index description;
    bool inherited;  // from another process or image; its number may not be known to the present one
};

struct Undecided {
    std::uint64_t ticket;
    std::int64_t t_ns;
    Index lock;
};

struct Process {
    std::int32_t pid = 0;
    std::int32_t parent_pid = 0;
    std::uint64_t start_time = 0;    // 0: unknown
    std::uint32_t image = 0;         // the present one; 0: never attached
    std::uint32_t name_image = 0;    // image to take name and trace id from
    bool counted = false;            // in processes_seen()
    bool main_seen = false;          // its first thread was counted
    bool nameless_children = false;  // it forked a child whose pid is not known
    bool execs = false;              // said that it becomes another program, which has not said that it began
    bool out_of_sight = false;       // is not traced, or not any more: how it ends is not recorded
    bool forked = false;             // by a process that is traced, so it is too
    std::vector<Index> threads;
    std::vector<Descriptor> descriptors;                   // by fd
    std::vector<Index> owned;                              // Ranges of process-owned families
    std::vector<Undecided> undecided;                      // ends of holds that the fate of this process explains
    std::uint32_t settled = 0;                             // Culprits' mark
    Index next_sibling = kNone, previous_sibling = kNone;  // with the same parent_pid

    void clear();
};

struct Description {
    struct Sharer {
        Index process;
        std::uint32_t descriptors;
    };
    Index file = kNone;
    std::vector<Sharer> sharers;
    std::vector<Index> owned;            // Ranges
    std::vector<std::uint32_t> numbers;  // that the source uses for it

    void clear();
};

class ProcessTable {
  public:
    explicit ProcessTable(const EventSource &source) : source_(source) {}

    // The process and thread an event comes from, made when unknown.
    Index process_of(const Event &event) {
        const Index known = event.process == 0 ? kNone : by_image_.find(event.process);
        return known != kNone ? known : find_process(event);
    }
    Index thread_of(const Event &event, Index process) {
        const std::uint64_t key = thread_key(event);
        const Index known = by_stream_.find(key);
        return known != kNone && threads_[known].process == process ? known : find_thread(event, process, key);
    }
    // The stream of the thread that the event comes from: what a program writes to planloop.jsonl itself is told of the
    // thread that the spool knows.
    std::uint32_t stream_of(const Event &event) const;
    Index find_pid(std::int32_t pid) const { return by_pid_.find(static_cast<std::uint32_t>(pid)); }
    Index find_image(std::uint32_t image) const { return by_image_.find(image); }
    Index find_stream(std::uint32_t stream) const { return by_stream_.find(stream); }
    Index add_process(std::int32_t pid);
    void set_parent(Index process, std::int32_t pid);
    void attach(Index process, std::uint32_t image, const ProcessInfo &info);
    void count(Index process);  // once
    void copy_descriptors(Index from, Index to);
    void release_threads(Index process);
    void release_process(Index process);  // its threads and descriptors are gone

    // The description behind a lock call's descriptor. `lost` is set when that shows that the descriptor was closed
    // behind our back and nobody has its description any more.
    Index description_of(Index process, const Event &event, Index file, Index &lost) {
        const Descriptor *entry = find_descriptor(process, named_descriptor(event, file));
        const bool known = entry != nullptr && descriptions_[entry->description].file == file &&
                           (event.description == 0 || by_number_.find(event.description) == entry->description);
        return known ? entry->description : learn_description(process, event, file, lost);
    }
    Index description_at(Index process, std::int64_t fd) const;
    // Whether the descriptor came from another process or image and has not been used since.
    bool is_inherited(Index process, std::int64_t fd) const;
    Index find_description(std::uint32_t number) const { return by_number_.find(number); }
    // Each returns the description that nobody has any more, or kNone.
    Index set_descriptor(Index process, std::int64_t fd, Index description, bool inherited);
    Index drop_descriptor(Index process, std::int64_t fd);
    void release_description(Index description);

    bool shares(Index process, Index description) const;
    void begin_child_wait(Index thread, std::int64_t child);  // as waitpid's pid argument
    void end_child_wait(Index thread);
    // Calls visit(process, between) for each known child that the thread waits for, with `between` 0. What a program
    // that makes no lock call itself waits for is not recorded (a shell, mostly): what is known to have come from such
    // a child is visited too, with the pid of that child as `between`.
    template <class Visit>
    void for_awaited_children(const Thread &waiter, Visit visit) const {
        if (!waiter.waits_for_child) return;
        if (waiter.child > 0)
            visit_recorded(static_cast<std::int32_t>(waiter.child), 0, 0, visit);
        else
            for_children(process(waiter.process).pid, [&](std::int32_t child) { visit_recorded(child, 0, 0, visit); });
    }
    // Calls visit(process) for each that came from `pid` over nobody but such as are not recorded.
    template <class Visit>
    void for_recorded_below(std::int32_t pid, Visit visit) const {
        const auto one = [&](Index process, std::int32_t /*between*/) { visit(process); };
        for_children(pid, [&](std::int32_t child) { visit_recorded(child, 0, 0, one); });
    }
    // The nearest one above that is recorded, or that waits for one of those between; kNone: not known.
    Index recorded_parent(Index process) const;

    Process &process(Index index) { return processes_[index]; }
    const Process &process(Index index) const { return processes_[index]; }
    Thread &thread(Index index) { return threads_[index]; }
    const Thread &thread(Index index) const { return threads_[index]; }
    Description &description(Index index) { return descriptions_[index]; }
    const Description &description(Index index) const { return descriptions_[index]; }
    Index process_end() const { return processes_.end(); }  // slots of released processes have pid 0
    std::uint64_t processes_seen() const { return processes_seen_; }
    std::uint64_t threads_seen() const { return threads_seen_; }

  private:
    static constexpr int kUnrecorded = 8;  // generations that are followed

    template <class Visit>
    void for_children(std::int32_t pid, Visit visit) const {
        for (Index child = by_parent_.find(static_cast<std::uint32_t>(pid)); child != kNone;
             child = process(child).next_sibling)
            visit(process(child).pid);
    }
    template <class Visit>
    void visit_recorded(std::int32_t pid, std::int32_t between, int level, const Visit &visit) const {
        const Index known = find_pid(pid);
        if (known != kNone) visit(known, between);
        if (level == kUnrecorded || (known != kNone && !process(known).threads.empty())) return;
        for_children(
            pid, [&](std::int32_t child) { visit_recorded(child, between != 0 ? between : pid, level + 1, visit); });
    }
    // Threads without a stream number are told apart by their tid.
    static std::uint64_t thread_key(const Event &event) {
        return event.thread != 0 ? event.thread : std::uint64_t{1} << 40 | static_cast<std::uint32_t>(event.tid);
    }
    Index find_process(const Event &event);
    Index find_thread(const Event &event, Index process, std::uint64_t key);
    Index thread_with_other_voice(Index process, std::int32_t tid, bool hearsay) const;
    // Instrumented programs name no descriptor: their locks on one file are one description.
    static std::int64_t named_descriptor(const Event &event, Index file) {
        return event.fd >= 0 ? event.fd : -2 - static_cast<std::int64_t>(file);
    }
    const Descriptor *find_descriptor(Index process, std::int64_t fd) const;
    Index learn_description(Index process, const Event &event, Index file, Index &lost);
    Index make_description(Index file, std::uint32_t number);
    Index adopt_number(Index into, std::uint32_t number);
    void add_sharer(Index description, Index process);
    Index drop_sharer(Index description, Index process);

    const EventSource &source_;
    Pool<Process> processes_;
    Pool<Thread> threads_;
    Pool<Description> descriptions_;
    FlatMap by_pid_, by_image_, by_stream_, by_number_;
    FlatMap by_parent_;   // pid of the parent, known or not, to the first of its children
    FlatMap awaited_by_;  // pid of a child to a thread that waits for it
    std::uint64_t processes_seen_ = 0, threads_seen_ = 0;
    bool hearsay_ = false;  // there is any
};

}  // namespace planloop::analysis

#endif
