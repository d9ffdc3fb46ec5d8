// A part of a session's events, in time order: one spool, or planloop.jsonl. event_source.cpp merges the parts.
// Internal to the event source. Threads: one user at a time.
#ifndef PLANLOOP_ANALYSIS_SOURCE_EVENT_PART_H
#define PLANLOOP_ANALYSIS_SOURCE_EVENT_PART_H

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "analysis/event.h"
#include "analysis/source/site_table.h"

namespace planloop::analysis {

// Numbers of processes, threads, files and descriptions carry the number of their part in the top bits.
inline constexpr unsigned kPartShift = 26;
inline constexpr std::uint32_t kLocalMask = (std::uint32_t{1} << kPartShift) - 1;
inline constexpr std::uint32_t kLogPart = 62;
inline constexpr std::uint32_t kMostSpools = kLogPart;
inline constexpr unsigned kEntryShift = 56;

// 0 stays 0: unknown. So does what no real recording can have given out.
constexpr std::uint32_t part_number(std::uint32_t part, std::uint32_t local) noexcept {
    return local == 0 || local > kLocalMask ? 0 : part << kPartShift | local;
}

// At equal times: who made a process before it speaks, a release before the acquisition that it allowed.
constexpr int event_rank(EventKind kind) noexcept {
    switch (kind) {
        case EventKind::process_forked:
        case EventKind::child_made:
            return 0;
        case EventKind::process_started:
            return 1;
        case EventKind::lock_released:
        case EventKind::descriptor_closed:
        case EventKind::process_exec:
        case EventKind::process_exiting:
        case EventKind::process_ended:
            return 2;
        case EventKind::lock_acquired:
        case EventKind::lock_failed:
            return 4;
        default:
            return 3;
    }
}

// What events refer to, by full number.
struct EventTables {
    std::unordered_map<std::uint32_t, ProcessInfo> processes;
    std::unordered_map<std::uint32_t, FileInfo> files;
    SiteTable sites;
};

class EventPart {
  public:
    virtual ~EventPart() = default;
    virtual bool next(Event &event) = 0;  // false: no more for now
    virtual std::int64_t now_ns() const { return 0; }
    // How much was read and is there, of the same unit; nothing: not known.
    virtual std::pair<std::uint64_t, std::uint64_t> position() const { return {0, 0}; }
    // Looks for more; only when following. `settled`: what was begun and is not finished never will be.
    virtual void poll(bool settled) = 0;
    virtual void add_notes(SourceNotes &notes) const = 0;
};

// The last part of argv[0], told apart from its arguments with the executable's help where it has spaces in it.
std::string process_name(const std::string &command_line, const std::string &executable);

// The texts behind a `process` and a `file` record; what is cut off stays empty. parent_process is as in the spool.
void parse_process(std::string_view payload, ProcessInfo &info);
void parse_trace(std::string_view payload, std::string &trace_id, std::string &operation);
std::uint32_t parse_file(std::string_view payload, FileInfo &info);  // its number in the spool; 0: too short

}  // namespace planloop::analysis

#endif
