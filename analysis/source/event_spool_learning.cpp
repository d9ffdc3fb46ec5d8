// The part of SpoolEvents that learns what events refer to: processes, files, programs, operations.
#include <algorithm>
#include <utility>

#include "analysis/source/event_spool.h"
#include "lockcore/trace_id.h"

namespace planloop::analysis {
namespace {

// Numbers of processes at the top of the range: who is at work on an operation, then who only shares a lock.
constexpr std::uint32_t kMostOperations = std::uint32_t{1} << 16;
constexpr std::int64_t kClockTicksPerSecond = 100;  // USER_HZ, the unit of start times in /proc

using wire::RecordKind;

}  // namespace

// What the record tells about others. False: that is all, it is no event.
bool SpoolEvents::learn(OpenStream &open) {
    const SpoolRecord &record = open.head;
    switch (record.kind) {
        case RecordKind::file:
            learn_file(record);
            return false;
        case RecordKind::module: {
            const ProcessInfo &info = tables_.processes[number(record.process)];
            tables_.sites.learn(number(record.process), record.payload, info.executable, info.working_folder);
            return false;
        }
        case RecordKind::trace:
            open.speaker = learn_trace(record, open.speaker);
            return false;
        case RecordKind::process:
            return learn_process(record);
        default:
            return true;
    }
}

// False: it was known already, and is only said again in another chunk of a ring.
bool SpoolEvents::learn_process(const SpoolRecord &record) {
    const bool repeated = (record.flags & wire::kRepeated) != 0;
    const std::uint32_t id = number(record.process);
    if (repeated && tables_.processes.count(id) != 0) return false;
    ProcessInfo info;
    parse_process(record.payload, info);
    if (info.pid == 0) info.pid = record.pid;
    // What it shared with its parent when it began may be long gone by now.
    info.parent_process = repeated ? 0 : number(info.parent_process);
    if (repeated) info.replaced_by_exec = false;
    if (info.trace_id.empty()) info.trace_id = own_trace_id(info);
    if (id != 0) tables_.processes[id] = std::move(info);
    return true;
}

// A process that inherited no trace id has one of its own: made of what tells processes apart, so that it is the same
// whenever the spool is read, over exec, and for a process that is heard of before it records anything itself.
std::string SpoolEvents::own_trace_id(const ProcessInfo &info) const {
    const std::uint64_t started_ns = info.start_time * (1'000'000'000 / kClockTicksPerSecond);
    constexpr std::uint64_t kMix = 0x9e3779b97f4a7c15U;
    const std::uint64_t identity = info.start_time << 22 ^ static_cast<std::uint32_t>(info.pid);
    const auto boot_utc_ns = static_cast<std::uint64_t>(reader_->boot_utc_ns());  // of a damaged spool: any
    return make_trace_id(static_cast<std::int64_t>(boot_utc_ns + started_ns),
                         static_cast<std::uint32_t>((identity + part_) * kMix >> 32));
}

// A process that only shares a lock has no image: it gets a number of a process out of reach of theirs, and of those
// that learn_trace() gives. Sharers long past give theirs back.
std::uint32_t SpoolEvents::learn_sharer(const SpoolRecord &record) {
    constexpr std::uint32_t kMostSharers = 4096;
    ProcessInfo info;
    parse_process(record.payload, info);
    if (info.pid == 0) return 0;
    if (info.trace_id.empty()) info.trace_id = own_trace_id(info);
    const std::uint32_t id = number(kLocalMask - kMostOperations - sharers_++ % kMostSharers);
    tables_.processes[id] = std::move(info);
    return id;
}

void SpoolEvents::learn_file(const SpoolRecord &record) {
    FileInfo info;
    const std::uint32_t id = number(parse_file(record.payload, info));
    if ((record.flags & wire::kRepeated) != 0 && tables_.files.count(id) != 0) return;
    if (id != 0) tables_.files[id] = std::move(info);
}

// A program that cannot be traced gets a number of a file, counted down from the highest.
std::uint32_t SpoolEvents::learn_program(const SpoolRecord &record) {
    constexpr std::uint32_t kMostPrograms = 4096;
    if (programs_ >= kMostPrograms) return 0;
    const std::uint32_t id = number(kLocalMask - programs_++);
    tables_.files[id].path = record.payload.substr(0, record.payload.find('\0'));
    return id;
}

// A process at work on an operation gets a number of a process, counted down from the highest; those of operations long
// past are used again, so that a program that starts operations for ever costs no more memory than one that stops.
std::uint32_t SpoolEvents::learn_trace(const SpoolRecord &record, std::uint32_t speaker) {
    std::string trace_id;
    std::string operation;
    parse_trace(record.payload, trace_id, operation);
    if (trace_id.empty() && operation.empty()) return 0;
    if (speaker != 0) {  // said again in another chunk of a ring
        const ProcessInfo &present = tables_.processes[speaker];
        if (present.trace_id == trace_id && present.operation == operation) return speaker;
    }
    const std::uint32_t id = number(kLocalMask - operations_++ % kMostOperations);
    ProcessInfo info = tables_.processes[number(record.process)];
    if (info.pid == 0) info.pid = record.pid;
    if (!trace_id.empty()) info.trace_id = std::move(trace_id);
    if (!operation.empty()) info.operation = std::move(operation);
    tables_.processes[id] = std::move(info);
    return id;
}

// The latest image of a pid; with a start time, of that process and no other that had the pid.
std::uint32_t SpoolEvents::image_of(std::int32_t pid, std::uint64_t start_time) const {
    const auto images = images_.find(pid);
    if (images == images_.end()) return 0;
    const auto is_it = [&](std::uint32_t image) {
        const auto info = tables_.processes.find(image);
        if (info == tables_.processes.end()) return false;
        return start_time == 0 || info->second.start_time == 0 || info->second.start_time == start_time;
    };
    const auto latest = std::find_if(images->second.rbegin(), images->second.rend(), is_it);
    return latest == images->second.rend() ? 0 : *latest;
}

}  // namespace planloop::analysis
