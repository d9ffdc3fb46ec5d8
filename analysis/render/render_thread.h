// Renders the timeline in a thread of its own, while the analysis goes on in the caller's. Entries are copied into
// batches, of which there are few: who is ahead by all of them waits, so memory stays bounded.
//
// On a machine, or in a CPU set, of one processor there is no such thread: then add() renders at once. So it does for
// the first kAlone entries, since the thread and its batches cost as much as some 1,500 (0.8 ms).
//
// Threads: add() and finish() by one. `render` is called for one entry at a time, in their order; what it touches
// belongs to it until finish() is back. Errors: what `render` throws, the next add() or finish() throws, and nothing
// is rendered after it.
#ifndef PLANLOOP_ANALYSIS_RENDER_RENDER_THREAD_H
#define PLANLOOP_ANALYSIS_RENDER_RENDER_THREAD_H

#include <array>
#include <condition_variable>
#include <cstddef>
#include <exception>
#include <mutex>
#include <thread>
#include <vector>

#include "analysis/report.h"

namespace planloop::analysis {

// How many processors this process may use.
std::size_t usable_processors();

class RenderThread {
  public:
    static constexpr std::size_t kAlone = 4'096;

    explicit RenderThread(TimelineSink render, std::size_t processors = usable_processors());
    ~RenderThread();  // what was not rendered by finish() may be left out
    RenderThread(const RenderThread &) = delete;
    RenderThread &operator=(const RenderThread &) = delete;

    void add(const TimelineEntry &entry);
    void finish();  // all is rendered

  private:
    static constexpr std::size_t kBatches = 4, kEntries = 256;
    struct Batch {
        std::vector<TimelineEntry> entries;  // kept for their memory
        std::size_t used = 0;
    };

    bool start();
    void hand_over();
    void run();
    void stop();

    TimelineSink render_;
    std::size_t alone_;                    // so many more entries are rendered by add() itself
    std::array<Batch, kBatches> batches_;  // used in turn
    std::mutex mutex_;
    std::condition_variable changed_;
    std::size_t handed_ = 0, rendered_ = 0;  // batches
    bool over_ = false;                      // no more will be handed over
    std::exception_ptr thrown_;
    std::thread thread_;
};

}  // namespace planloop::analysis

#endif
