#include "cli/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <string>
#include <utility>

#include "analysis/source/passing_source.h"
#include "analysis/source/watched_source.h"

namespace planloop::cli {
namespace {

constexpr int kBar = 30;  // columns

void draw(const std::string &text) {
    const std::string line = "\r" + text + "\x1b[K";
    static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
}

class Bar {
  public:
    void show(double share, std::uint64_t events) {
        shown_ = true;
        if (share < 0) return draw(fmt::format("planloop: {} events read", events));
        const int done = static_cast<int>(std::clamp(share, 0.0, 1.0) * kBar);
        draw(fmt::format("planloop: [{:<{}}] {:.0f} %", std::string(static_cast<std::size_t>(done), '#'), kBar,
                         100 * std::clamp(share, 0.0, 1.0)));
    }
    Bar() = default;
    Bar(const Bar &) = delete;
    Bar &operator=(const Bar &) = delete;
    ~Bar() { clear(); }
    void clear() {
        if (std::exchange(shown_, false)) draw("");
    }

  private:
    bool shown_ = false;
};

// Takes the bar away as soon as the last event is read: findings may be told then.
class WithBar final : public analysis::PassingSource {
  public:
    explicit WithBar(std::unique_ptr<analysis::EventSource> source)
        : PassingSource(std::make_unique<analysis::WatchedSource>(
              std::move(source), [this](double share, std::uint64_t events) { bar_.show(share, events); })) {}

    bool next(analysis::Event &event) override {
        if (PassingSource::next(event)) return true;
        bar_.clear();
        return false;
    }

  private:
    Bar bar_;
};

}  // namespace

std::unique_ptr<analysis::EventSource> with_progress(std::unique_ptr<analysis::EventSource> source) {
    if (isatty(STDERR_FILENO) == 0) return source;
    return std::make_unique<WithBar>(std::move(source));
}

}  // namespace planloop::cli
