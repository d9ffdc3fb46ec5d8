// What a span costs: recorded into the mapped journal, with metadata, and where no operation is recorded.

#include <benchmark/benchmark.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>

#include "lockcore/span.h"

namespace {

// An operation holds 65,536 spans; a new one in good time, outside of what is measured.
constexpr int kSpansOfOne = 60'000;

class Recorded {
  public:
    Recorded() {
        std::string folder = (std::filesystem::temp_directory_path() / "planloop-bench-XXXXXX").string();
        folder_ = ::mkdtemp(folder.data());
        ::setenv("PLANLOOP_HOME", folder_.c_str(), 1);
        session_ = *planloop::create_session("bench");
        renew();
    }
    ~Recorded() {
        recording_.reset();
        std::filesystem::remove_all(folder_);
    }
    void renew() {
        recording_.reset();
        std::filesystem::remove_all(folder_ + "/sessions/bench/logs/traces");
        planloop::start_operation_trace("bench");
        recording_ = std::make_unique<planloop::OperationRecording>(session_);
    }

  private:
    std::string folder_;
    planloop::Session session_;
    std::unique_ptr<planloop::OperationRecording> recording_;
};

template <class MakeSpan>
void measure(benchmark::State &state, int spans_of_one, MakeSpan make_span) {
    Recorded recorded;
    int left = spans_of_one;
    for (auto _ : state) {
        if (left-- == 0) {
            state.PauseTiming();
            recorded.renew();
            left = spans_of_one;
            state.ResumeTiming();
        }
        make_span();
    }
}

void span(benchmark::State &state) {
    measure(state, kSpansOfOne, [] { const planloop::Span one("load_state"); });
}
BENCHMARK(span);

void span_with_metadata(benchmark::State &state) {
    measure(state, kSpansOfOne / 2, [] { const planloop::Span one("load_state", {{"size", 12}}); });
}
BENCHMARK(span_with_metadata);

void span_not_recorded(benchmark::State &state) {
    for (auto _ : state) const planloop::Span one("load_state");
}
BENCHMARK(span_not_recorded);

void operation_with_one_span(benchmark::State &state) {
    Recorded recorded;
    for (auto _ : state) recorded.renew();
}
BENCHMARK(operation_with_one_span)->Unit(benchmark::kMicrosecond);

}  // namespace
