#include <algorithm>
#include <cstring>

#include "analysis/source/event_part.h"

namespace planloop::analysis {
namespace {

// Takes the next string of a payload; strings are ended by a zero byte, the last one perhaps by the payload's end.
std::string take_string(std::string_view &rest) {
    const std::size_t end = std::min(rest.find('\0'), rest.size());
    std::string text{rest.substr(0, end)};
    rest.remove_prefix(std::min(end + 1, rest.size()));
    return text;
}

template <class Body>
bool take_body(std::string_view &rest, Body &body) {
    if (rest.size() < sizeof(body)) return false;
    std::memcpy(&body, rest.data(), sizeof(body));
    rest.remove_prefix(sizeof(body));
    return true;
}

// A century after the machine started, at 100 ticks a second: what is later is damage. In ns it still is a number.
constexpr std::uint64_t kMostStartTicks = 100ULL * 366 * 24 * 3600 * 100;

}  // namespace

std::string process_name(const std::string &command_line, const std::string &executable) {
    std::string_view path = command_line;
    const bool whole = !executable.empty() && path.substr(0, executable.size()) == executable &&
                       (path.size() == executable.size() || path[executable.size()] == ' ');
    path = whole ? std::string_view(executable) : path.substr(0, path.find(' '));
    if (path.empty()) path = executable;
    path.remove_prefix(path.rfind('/') + 1);  // npos + 1 is 0
    return std::string{path};
}

void parse_process(std::string_view payload, ProcessInfo &info) {
    wire::ProcessBody body{};
    if (take_body(payload, body)) {
        info.pid = body.pid;
        info.parent_pid = body.parent_pid;
        if (body.start_time <= kMostStartTicks) info.start_time = body.start_time;
        info.parent_process = body.parent_process;
        info.uid = body.uid;
        info.replaced_by_exec = body.replaced_by_exec != 0;
        info.command_line = take_string(payload);
        info.executable = take_string(payload);
        info.working_folder = take_string(payload);
        info.trace_id = take_string(payload);
        info.operation = take_string(payload);
    }
    info.name = process_name(info.command_line, info.executable);
    if (info.operation.empty()) info.operation = info.name;
}

void parse_trace(std::string_view payload, std::string &trace_id, std::string &operation) {
    trace_id = take_string(payload);
    operation = take_string(payload);
}

std::uint32_t parse_file(std::string_view payload, FileInfo &info) {
    wire::FileBody body{};
    if (!take_body(payload, body)) return 0;
    info.device = body.device;
    info.inode = body.inode;
    info.generation = body.generation;
    info.mode = body.mode;
    info.path = take_string(payload);
    if (info.mode == 0) info.lock_id = take_string(payload);
    return body.id;
}

}  // namespace planloop::analysis
