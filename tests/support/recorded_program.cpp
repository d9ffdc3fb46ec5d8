// A program that uses all of lockcore's records, as a user's would. `recorded_program SESSION WHAT`, where WHAT is
//
//   spans         an operation with spans, a transcript and metrics, then ends in peace
//   killed        begins a span, says so on stdout, and waits to be killed
//   throws        throws through an error context while it holds a lock
//   crash SIGNAL  captures crashes and dies by segv, abrt, bus, fpe, ill or overflow; `kill` waits for a signal
//   handled       captures crashes on top of a handler of its own, and dies by segv
//   reports       throws and reports until it is killed, a line on stdout for each report

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>

#include "lockcore/crash_capture.h"
#include "lockcore/error_context.h"
#include "lockcore/span.h"
#include "lockcore/traced_lock.h"
#include "lockcore/transcript.h"

namespace {

volatile int zero = 0;

volatile int deepest = -1;  // never reached, which the compiler cannot know

[[gnu::noinline]] int overflow(int depth) {
    volatile char room[4096];
    room[0] = static_cast<char>(depth);
    return depth == deepest ? 0 : overflow(depth + 1) + room[0];
}

[[gnu::noinline, gnu::no_sanitize("undefined")]] void die_by(std::string_view signal) {
    if (signal == "segv") *static_cast<volatile int *>(nullptr) = 1;  // the fault is here
    if (signal == "abrt") std::abort();
    if (signal == "fpe") std::printf("%d\n", 100 / zero);
    if (signal == "ill") asm volatile("ud2");
    if (signal == "overflow") std::printf("%d\n", overflow(0));
    if (signal == "bus") {
        const int file = memfd_create("empty", 0);
        auto *page = static_cast<volatile char *>(mmap(nullptr, 4096, PROT_READ, MAP_SHARED, file, 0));
        std::printf("%d\n", page[0]);  // behind the end of the file
    }
    if (signal == "kill") {
        std::puts("ready");
        std::fflush(stdout);
        for (;;) pause();
    }
}

[[gnu::noinline]] void apply_task(int task_id) {
    PLANLOOP_CAPTURE(task_id);
    throw std::invalid_argument("no such task");
}

void own_handler(int) {
    static_cast<void>(write(STDOUT_FILENO, "own handler\n", 12) == 12);
    _exit(7);
}

}  // namespace

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    const auto session = planloop::create_session(argv[1]);
    if (!session) return 2;
    const std::string_view what = argv[2];
    planloop::start_operation_trace("suggest");
    planloop::traced<std::mutex> mutex{planloop::LockLabel{"work"}};
    if (what == "crash" || what == "handled") {
        if (what == "handled") signal(SIGSEGV, own_handler);
        if (const auto captured = planloop::capture_crashes(*session); !captured) return 2;
        const std::lock_guard guard(mutex);
        die_by(what == "handled" ? "segv" : argv[3]);
        return 3;
    }
    while (what == "reports") {
        planloop::start_operation_trace("report");
        try {
            planloop::capture_error_context(*session, [] { apply_task(1); });
        } catch (const std::invalid_argument &) {
            std::puts("reported");
            std::fflush(stdout);
        }
    }
    planloop::OperationRecording recording(*session, {"suggest"});
    const planloop::Span span("ask_model", {{"bytes \xff", "\xfe"}, {"api_key", "sk"}});
    if (what == "killed") {
        std::puts("ready");
        std::fflush(stdout);
        for (;;) pause();
    }
    if (what == "spans") {
        planloop::LlmCall call;
        call.provider = "example";
        call.model = "small";
        call.prompt = "the password=hunter2 is secret";
        call.response = planloop::LlmResponse{"do task 1", "end_turn", 10, 20};
        call.duration_ns = 2'300'000'000;
        return planloop::record_llm_call(*session, call) ? 0 : 1;
    }
    if (what == "throws") {
        try {
            planloop::capture_error_context(*session, [&] {
                const std::lock_guard guard(mutex);
                apply_task(41);
            });
        } catch (const std::invalid_argument &) {
            return 0;
        }
    }
    return 2;
}
