#include "analysis/words.h"

#include <fmt/format.h>

#include <algorithm>
#include <csignal>
#include <cstring>

namespace planloop::analysis {

std::string duration_words(std::int64_t ns) {
    if (ns < 1'000) return fmt::format("{} ns", ns);
    if (ns < 1'000'000) return fmt::format("{} µs", ns / 1'000);
    if (ns < 1'000'000'000) return fmt::format("{} ms", ns / 1'000'000);
    if (ns < 120'000'000'000) return fmt::format("{}.{} s", ns / 1'000'000'000, ns / 100'000'000 % 10);
    return fmt::format("{} min {} s", ns / 60'000'000'000, ns / 1'000'000'000 % 60);
}

std::string process_words(const Model &model, std::uint32_t image, std::int32_t pid) {
    const std::string &name = model.source.process(image).name;
    return fmt::format("{} {}", name.empty() ? "process" : name, pid);
}

std::string thread_words(const Model &model, std::uint32_t image, std::int32_t pid, std::int32_t tid) {
    std::string words = process_words(model, image, pid);
    if (tid != pid && tid != 0) words += fmt::format(" (thread {})", tid);
    return words;
}

Participant participant_of(const Model &model, std::uint32_t image, std::int32_t pid, std::int32_t tid) {
    const ProcessInfo &who = model.source.process(image);
    Participant participant;
    participant.pid = pid;
    participant.tid = tid;
    participant.process = who.name;
    participant.command_line = who.command_line;
    participant.trace_id = who.trace_id;
    participant.started_by = starter_of(model, image);
    return participant;
}

Starter starter_of(const Model &model, std::uint32_t image) {
    constexpr int kGenerations = 32;
    const ProcessInfo *at = &model.source.process(image);
    const std::int32_t pid = at->pid;
    const std::string &command = at->command_line;
    for (int i = 0; i < kGenerations; ++i) {
        std::uint32_t parent = at->parent_process;
        if (parent == 0) {  // of a process that was heard of when it ran already
            const Index index = model.table.find_pid(at->parent_pid);
            if (index != kNone && at->parent_pid != at->pid) parent = model.table.process(index).image;
        }
        if (parent == 0) break;
        at = &model.source.process(parent);
        if (at->pid != pid && !at->command_line.empty() && at->command_line != command)
            return {at->pid, at->name, at->command_line};
    }
    return {};
}

std::string starter_words(const Starter &starter) {
    constexpr std::size_t kLongest = 100;
    if (starter.pid == 0) return "";
    std::string command = starter.command_line;
    if (command.size() > kLongest) {
        std::size_t end = kLongest;
        while (end > 0 && (static_cast<unsigned char>(command[end]) & 0xc0u) == 0x80u) --end;
        command = command.substr(0, end) + "...";
    }
    return fmt::format(", started by {} {} ({})", starter.process, starter.pid, command);
}

std::string lock_words(const Model &model, Index lock) {
    const std::string &path = model.locks.path(lock);
    return path.empty() ? model.locks[lock].id : path;
}

std::string signal_words(int signal) {
    const char *name = sigabbrev_np(signal);
    return name == nullptr ? fmt::format("signal {}", signal) : fmt::format("signal {} (SIG{})", signal, name);
}

std::string death_words(std::int64_t wait_status) {
    if (wait_status < 0) return "ended";
    const int signal = static_cast<int>(wait_status & 0x7f);
    if (signal != 0) return "was killed by " + signal_words(signal);
    return fmt::format("exited with status {}", wait_status >> 8 & 0xff);
}

std::string list_words(const std::vector<std::string> &names, std::size_t most) {
    std::string words;
    const std::size_t shown = names.size() > most ? most : names.size();
    for (std::size_t i = 0; i < shown; ++i) {
        if (i > 0) words += i + 1 == names.size() ? " and " : ", ";
        words += names[i];
    }
    if (shown < names.size()) words += fmt::format(" and {} more", names.size() - shown);
    return words;
}

}  // namespace planloop::analysis
