#include "lockcore/crash_capture.h"

#include <errno.h>
#include <fmt/format.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <cstring>
#include <mutex>
#include <optional>
#include <span>
#include <system_error>
#include <utility>

#include "lockcore/dev_mode.h"
#include "lockcore/error_report.h"
#include "lockcore/file_lock.h"
#include "lockcore/frame_namer.h"
#include "lockcore/operation_trace.h"
#include "lockcore/record_files.h"
#include "lockcore/thread_locks.h"
#include "lockcore/trace_id.h"
#include "lockcore/wire/crash_dump.h"

namespace planloop {
namespace {

constexpr std::array kSignals{SIGSEGV, SIGABRT, SIGBUS, SIGFPE, SIGILL};
constexpr std::size_t kStackBytes = std::size_t{64} << 10;
constexpr std::size_t kLargestDump = std::size_t{64} << 20;
constexpr std::chrono::seconds kPatience{5};

// All that the handler needs, in static memory.
wire::CrashPlan plan;
std::array<wire::CrashLock, wire::kMostCrashLocks> locks;
std::array<struct sigaction, kSignals.size()> before;
std::atomic<bool> captured{false};

std::uint32_t collect_locks() noexcept {
    std::uint32_t count = 0;
    recording::for_each_lock(
        [](const recording::RawLock &lock, void *context) {
            auto &number = *static_cast<std::uint32_t *>(context);
            if (number == locks.size()) return;
            wire::CrashLock &to = locks[number++];
            to.since_utc_ns = lock.since_utc_ns;
            to.held = lock.held ? 1 : 0;
            to.shared = lock.mode == wire::Mode::shared ? 1 : 0;
            wire::append_crash_text(to.family, 0, sizeof(to.family),
                                    wire::kFamilies[static_cast<std::size_t>(lock.family)].name);
            wire::append_crash_text(to.path, 0, sizeof(to.path), lock.path == nullptr ? "" : lock.path);
        },
        &count);
    return count;
}

void on_crash(int signal, siginfo_t *info, void *context) {
    if (!captured.exchange(true, std::memory_order_relaxed)) {
        const recording::TraceTexts trace = recording::trace_texts();
        if (trace.trace_id[0] != '\0') {
            wire::append_crash_text(plan.header.trace_id, 0, sizeof(plan.header.trace_id), trace.trace_id);
            wire::append_crash_text(plan.header.operation, 0, sizeof(plan.header.operation), trace.operation);
        }
        const std::uint32_t count = collect_locks();
        wire::write_crash_dump(plan, signal, info, context, locks.data(), count);
    }
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
        if (kSignals[i] != signal) continue;
        const struct sigaction &old = before[i];
        if ((old.sa_flags & SA_SIGINFO) != 0 && old.sa_sigaction != nullptr)
            return old.sa_sigaction(signal, info, context);
        if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) return old.sa_handler(signal);
    }
    wire::die_as_before(signal, info);
}

// A stack overflow leaves no stack to run a handler on.
void give_thread_a_signal_stack() {
    stack_t present{};
    if (::sigaltstack(nullptr, &present) != 0 || (present.ss_flags & SS_DISABLE) == 0) return;
    void *memory = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return;
    stack_t own{};
    own.ss_sp = memory;
    own.ss_size = kStackBytes;
    if (::sigaltstack(&own, nullptr) != 0) ::munmap(memory, kStackBytes);
}

struct Dump {
    wire::CrashHeader header{};
    std::vector<wire::CrashLock> locks;
    std::vector<std::byte> stack;
    std::string maps;
};

template <std::size_t size>
std::string text_in(const char (&from)[size]) {
    return {from, ::strnlen(from, size)};
}

Result<Dump> read_dump(const std::string &path) {
    const auto content = read_record(path, kLargestDump);
    if (!content) return content.error();
    const Error damaged{fmt::format("{}: no crash dump that this planloop can read", printable(path))};
    Dump dump;
    if (content->size() < sizeof(dump.header)) return damaged;
    std::memcpy(&dump.header, content->data(), sizeof(dump.header));
    const wire::CrashHeader &header = dump.header;
    if (std::memcmp(header.magic, wire::kCrashMagic, sizeof(wire::kCrashMagic)) != 0 ||
        header.header_bytes != sizeof(header) || header.register_count != wire::kCrashRegisterCount ||
        header.locks > wire::kMostCrashLocks) {
        return damaged;
    }
    std::size_t at = sizeof(header);
    const std::size_t lock_bytes = header.locks * sizeof(wire::CrashLock);
    if (content->size() - at < lock_bytes || content->size() - at - lock_bytes < header.stack_bytes) return damaged;
    dump.locks.resize(header.locks);
    if (lock_bytes != 0) std::memcpy(dump.locks.data(), content->data() + at, lock_bytes);
    at += lock_bytes;
    dump.stack.resize(header.stack_bytes);
    std::memcpy(dump.stack.data(), content->data() + at, header.stack_bytes);
    dump.maps = content->substr(at + header.stack_bytes);
    return dump;
}

std::string message_of(const wire::CrashHeader &header) {
    const char *description = ::sigdescr_np(header.signal);
    std::string message = description != nullptr ? description : fmt::format("signal {}", header.signal);
    const bool fault = header.code > 0 && header.signal != SIGABRT;
    if (fault) message += fmt::format(" at address {:#x}", header.fault_address);
    return message;
}

ErrorReport report_of(const Dump &dump, const TellProcess &tell) {
    const wire::CrashHeader &header = dump.header;
    ErrorReport report;
    report.utc_ns = header.utc_ns;
    report.trace_id = text_in(header.trace_id);
    report.operation = text_in(header.operation);
    ProcessAtCrash process;
    if (tell && dump.locks.empty()) process = tell(header.pid, header.tid, header.utc_ns);
    report.locks = std::move(process.locks);
    if (report.trace_id.empty()) report.trace_id = process.trace_id;
    if (!valid_trace_id(report.trace_id)) report.trace_id = make_trace_id();
    if (report.operation.empty()) report.operation = process.operation;
    report.process = text_in(header.process);
    if (report.operation.empty()) report.operation = report.process;
    const char *name = ::sigabbrev_np(header.signal);
    report.type = name != nullptr ? fmt::format("SIG{}", name) : "signal";
    report.message = message_of(header);
    report.stack_trace_of = "signal";
    report.signal = header.signal;
    report.fault_address = header.fault_address;
    report.pid = header.pid;
    report.tid = header.tid;
    const FrameNamer namer = FrameNamer::of_maps(dump.maps, header.utc_ns);
    bool first = true;
    for (const std::uint64_t address : namer.unwind(header.registers, header.stack_begin, dump.stack)) {
        for (StackFrame &frame : namer.name(address, !first)) report.stack.push_back(std::move(frame));
        first = false;
    }
    for (const wire::CrashLock &lock : dump.locks) {
        ThreadLock told;
        told.family = text_in(lock.family);
        told.path = text_in(lock.path);
        told.shared = lock.shared != 0;
        told.since_utc_ns = lock.since_utc_ns;
        (lock.held != 0 ? report.locks.held : report.locks.awaited).push_back(std::move(told));
    }
    return report;
}

}  // namespace

Result<void> capture_crashes(const Session &session) {
    if (recording_refused()) return {};
    if (auto made = make_record_folder(crash_dir(session)); !made) return made;
    if (crash_dir(session).size() >= sizeof(plan.folder)) return Error{"the session's path is too long"};
    wire::append_crash_text(plan.folder, 0, sizeof(plan.folder), crash_dir(session).c_str());
    wire::append_crash_text(plan.header.trace_id, 0, sizeof(plan.header.trace_id), process_trace_id().c_str());
    wire::append_crash_text(plan.header.process, 0, sizeof(plan.header.process), program_invocation_short_name);
    recording::lock_watchers.fetch_add(1, std::memory_order_relaxed);
    give_thread_a_signal_stack();
    struct sigaction action {};
    action.sa_sigaction = on_crash;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    ::sigfillset(&action.sa_mask);
    for (std::size_t i = 0; i < kSignals.size(); ++i) {
        ::sigaction(kSignals[i], nullptr, &before[i]);
        const bool ignored = (before[i].sa_flags & SA_SIGINFO) == 0 && before[i].sa_handler == SIG_IGN;
        if (ignored || before[i].sa_sigaction == on_crash) continue;
        if (::sigaction(kSignals[i], &action, nullptr) != 0) {
            return Error{fmt::format("cannot handle signal {}: {}", kSignals[i],
                                     std::strerror(errno))};  // NOLINT(concurrency-mt-unsafe)
        }
    }
    return {};
}

std::vector<std::string> name_crashes(const Session &session, const TellProcess &tell) {
    std::vector<std::string> reports;
    if (list_records(crash_dir(session), "").empty()) return reports;
    auto lock = FileLock::open(crash_dir(session) + "/.lock", FileLock::Recorded::no);
    if (!lock) return reports;
    try {
        const std::unique_lock guard(*lock, kPatience);
        if (!guard) return reports;
        for (const std::string &name : list_records(crash_dir(session), "")) {
            const std::string path = crash_dir(session) + '/' + name;
            const auto dump = read_dump(path);
            if (!dump) continue;
            auto report = store_error(session, report_of(*dump, tell));
            if (!report) continue;  // a full disk; the dump stays
            ::unlink(path.c_str());
            reports.push_back(std::move(*report));
        }
    } catch (const std::system_error &) {  // a file system without locks
    }
    return reports;
}

}  // namespace planloop
