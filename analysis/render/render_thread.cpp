#include "analysis/render/render_thread.h"

#include <sched.h>

#include <cstdint>
#include <system_error>
#include <utility>

namespace planloop::analysis {

std::size_t usable_processors() {
    cpu_set_t set;
    // It fails where there are more processors than the set can name.
    if (sched_getaffinity(0, sizeof(set), &set) != 0) return CPU_SETSIZE;
    return static_cast<std::size_t>(CPU_COUNT(&set));
}

RenderThread::RenderThread(TimelineSink render, std::size_t processors)
    : render_(std::move(render)), alone_(processors < 2 ? SIZE_MAX : kAlone) {}

RenderThread::~RenderThread() {
    stop();
}

// False: there is none, and will be none.
bool RenderThread::start() {
    for (Batch &batch : batches_) batch.entries.resize(kEntries);
    try {
        thread_ = std::thread(&RenderThread::run, this);
    } catch (const std::system_error &) {  // no more threads may be made
        alone_ = SIZE_MAX;
    }
    return thread_.joinable();
}

void RenderThread::add(const TimelineEntry &entry) {
    if (alone_ > 0 || (!thread_.joinable() && !start())) {
        --alone_;
        return render_(entry);
    }
    Batch &batch = batches_[handed_ % kBatches];
    batch.entries[batch.used++] = entry;
    if (batch.used == kEntries) hand_over();
}

void RenderThread::finish() {
    if (!thread_.joinable()) return;
    if (batches_[handed_ % kBatches].used > 0) hand_over();
    stop();
    if (thrown_) std::rethrow_exception(thrown_);
}

// Waits until the next batch is free.
void RenderThread::hand_over() {
    std::unique_lock<std::mutex> lock(mutex_);
    ++handed_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return thrown_ != nullptr || handed_ - rendered_ < kBatches; });
    if (thrown_) std::rethrow_exception(thrown_);
}

void RenderThread::stop() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard<std::mutex> lock(mutex_);
        over_ = true;
        changed_.notify_all();
    }
    thread_.join();
}

void RenderThread::run() {
    std::unique_lock<std::mutex> lock(mutex_);
    for (;;) {
        changed_.wait(lock, [this] { return over_ || rendered_ < handed_; });
        if (rendered_ == handed_) return;
        lock.unlock();
        Batch &batch = batches_[rendered_ % kBatches];
        std::exception_ptr thrown;
        try {
            for (std::size_t i = 0; i < batch.used; ++i) render_(batch.entries[i]);
        } catch (...) {
            thrown = std::current_exception();
        }
        batch.used = 0;
        lock.lock();
        ++rendered_;
        thrown_ = thrown;
        changed_.notify_all();
        if (thrown_) return;
    }
}

}  // namespace planloop::analysis
