// Synthetic event streams for tests of the analysis: a Scene is told what processes do, in time order, and plays it to
// the engine. Times are microseconds since the scene began; each call moves time on by one unless at() says more.
#ifndef PLANLOOP_TESTS_SUPPORT_VECTOR_SOURCE_H
#define PLANLOOP_TESTS_SUPPORT_VECTOR_SOURCE_H

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "analysis/event.h"
#include "analysis/report.h"

namespace planloop::test {

class VectorSource : public analysis::EventSource {
  public:
    bool next(analysis::Event &event) override {
        if (at_ == events.size()) return false;
        event = events[at_++];
        return true;
    }
    const analysis::ProcessInfo &process(std::uint32_t id) const override {
        const auto at = processes.find(id);
        return at == processes.end() ? no_process_ : at->second;
    }
    const analysis::FileInfo &file(std::uint32_t id) const override {
        const auto at = files.find(id);
        return at == files.end() ? no_file_ : at->second;
    }
    analysis::SourceNotes notes() const override { return source_notes; }

    std::vector<analysis::Event> events;
    std::map<std::uint32_t, analysis::ProcessInfo> processes;
    std::map<std::uint32_t, analysis::FileInfo> files;
    analysis::SourceNotes source_notes;

  private:
    std::size_t at_ = 0;
    analysis::ProcessInfo no_process_;
    analysis::FileInfo no_file_;
};

// A thread of a process image, as the events name it.
struct Actor {
    std::uint32_t image = 0;
    std::uint32_t stream = 0;
    std::int32_t pid = 0, tid = 0;
};

// What a lock call is about.
struct Target {
    std::uint32_t file = 1;
    std::int32_t fd = 3;
    std::uint32_t description = 0;
    wire::Family family = wire::Family::flock;
    wire::Mode mode = wire::Mode::exclusive;
    std::uint64_t start = 0, len = 0;
    bool blocking = true;
};

// The whole of a file, by a descriptor whose number no other file has.
inline Target target(std::uint32_t file, std::uint32_t description, wire::Family family = wire::Family::flock,
                     wire::Mode mode = wire::Mode::exclusive) {
    return {file, static_cast<std::int32_t>(10 + file), description, family, mode};
}

struct Outcome {
    analysis::Report report;
    std::vector<analysis::TimelineEntry> lines;
    std::vector<analysis::TimelineEntry> vain_waits;

    const analysis::Finding *find(const std::string &kind) const {
        for (const analysis::Finding &finding : report.findings)
            if (finding.kind == kind) return &finding;
        return nullptr;
    }
    std::size_t count(const std::string &kind) const {
        std::size_t number = 0;
        for (const analysis::Finding &finding : report.findings) number += finding.kind == kind ? 1u : 0u;
        return number;
    }
    std::vector<const analysis::TimelineEntry *> of(analysis::EventKind kind) const {
        std::vector<const analysis::TimelineEntry *> found;
        for (const analysis::TimelineEntry &line : lines)
            if (line.kind == kind) found.push_back(&line);
        return found;
    }
};

class Scene {
  public:
    static constexpr std::int64_t kEpochNs = 1'800'000'000'000'000'000;

    Scene &at(std::int64_t us) {
        now_us_ = us;
        return *this;
    }
    std::int64_t now_us() const { return now_us_; }

    void file(std::uint32_t id, const std::string &path, std::uint64_t inode, std::uint64_t generation = 7) {
        analysis::FileInfo info;
        info.device = 0xfe01;  // major fe, minor 01
        info.inode = inode;
        info.generation = generation;
        info.path = path;
        source.files[id] = info;
    }
    // A process that starts now. `parent`: the image that forked it.
    Actor process(std::int32_t pid, const std::string &name, const Actor &parent = {}, std::uint64_t start_time = 0) {
        return start(pid, name, parent, start_time, false);
    }
    Actor exec(const Actor &before, const std::string &name) {
        event(before, analysis::EventKind::process_exec);
        return start(before.pid, name, before, 0, true);
    }
    Actor thread(const Actor &process, std::int32_t tid) { return {process.image, ++streams_, process.pid, tid}; }

    std::uint64_t request(const Actor &who, const Target &what) {
        analysis::Event &made = lock_event(who, analysis::EventKind::lock_requested, what);
        made.entry = ++entries_;
        open_[made.entry] = {who, what, made.t_ns};
        return made.entry;
    }
    void acquired(std::uint64_t entry) { done(entry, analysis::EventKind::lock_acquired, 0); }
    void failed(std::uint64_t entry, int error) { done(entry, analysis::EventKind::lock_failed, error); }
    std::uint64_t lock(const Actor &who, const Target &what) {
        const std::uint64_t entry = request(who, what);
        acquired(entry);
        return entry;
    }
    void unlock(const Actor &who, const Target &what) {
        lock_event(who, analysis::EventKind::lock_released, what).mode = wire::Mode::none;
    }
    void close(const Actor &who, std::int32_t fd, std::uint32_t file = 0,
               wire::CloseCause cause = wire::CloseCause::close) {
        analysis::Event &made = event(who, analysis::EventKind::descriptor_closed);
        made.fd = fd;
        made.file = file;
        made.other = static_cast<std::int64_t>(cause);
    }
    void dup(const Actor &who, std::int32_t fd, std::int32_t copy) {
        analysis::Event &made = event(who, analysis::EventKind::descriptor_duplicated);
        made.fd = fd;
        made.other = copy;
    }
    Actor fork(const Actor &parent, std::int32_t child, const std::string &name) {
        event(parent, analysis::EventKind::process_forked).other = child;
        return process(child, name, parent);
    }
    void fork_silently(const Actor &parent, std::int32_t child) {
        event(parent, analysis::EventKind::process_forked).other = child;
    }
    void sharer(const Actor &who, const Target &what, std::int32_t pid, std::int32_t fd) {
        analysis::Event &made = lock_event(who, analysis::EventKind::sharer_seen, what);
        made.other = pid;
        made.start = static_cast<std::uint64_t>(fd);
    }
    void exit(const Actor &who, int status = 0) { event(who, analysis::EventKind::process_exiting).other = status; }
    void ended(std::int32_t pid, int wait_status, std::uint64_t start_time = 0) {
        Actor nobody;
        nobody.pid = pid;
        analysis::Event &made = event(nobody, analysis::EventKind::process_ended);
        made.other = wait_status;
        made.start = start_time;
    }
    void waits_for_child(const Actor &who, std::int32_t child) {
        event(who, analysis::EventKind::child_wait_begun).other = child;
    }
    void reaps(const Actor &who, std::int32_t child) {  // its wait comes back with the child
        analysis::Event &made = event(who, analysis::EventKind::child_wait_ended);
        made.start = static_cast<std::uint64_t>(child);
        made.other = child;
    }
    analysis::Event &event(const Actor &who, analysis::EventKind kind) {
        analysis::Event made;
        made.t_ns = kEpochNs + now_us_++ * 1'000;
        made.kind = kind;
        made.process = who.image;
        made.thread = who.stream;
        made.pid = who.pid;
        made.tid = who.tid;
        source.events.push_back(made);
        return source.events.back();
    }

    Outcome play(const analysis::AnalysisOptions &options = {}) const {
        VectorSource copy = source;
        Outcome outcome;
        outcome.report = analysis::analyse(
            copy, options, [&](const analysis::TimelineEntry &line) { outcome.lines.push_back(line); },
            [&](const analysis::TimelineEntry &wait) { outcome.vain_waits.push_back(wait); });
        return outcome;
    }

    VectorSource source;

  private:
    struct Open {
        Actor who;
        Target what;
        std::int64_t since_ns;
    };

    Actor start(std::int32_t pid, const std::string &name, const Actor &parent, std::uint64_t start_time, bool exec) {
        Actor made{++images_, ++streams_, pid, pid};
        analysis::ProcessInfo info;
        info.pid = pid;
        info.parent_pid = exec ? 0 : parent.pid;
        info.parent_process = parent.image;
        info.replaced_by_exec = exec;
        info.start_time = start_time;
        info.name = name;
        info.command_line = name + " --test";
        info.trace_id = "tr_" + std::to_string(pid);
        source.processes[made.image] = info;
        event(made, analysis::EventKind::process_started);
        return made;
    }
    analysis::Event &lock_event(const Actor &who, analysis::EventKind kind, const Target &what) {
        analysis::Event &made = event(who, kind);
        made.family = what.family;
        made.mode = what.mode;
        made.flags = what.blocking ? wire::kBlocking : 0;
        made.fd = what.fd;
        made.file = what.file;
        made.description = what.description;
        made.start = what.start;
        made.len = what.len;
        return made;
    }
    void done(std::uint64_t entry, analysis::EventKind kind, int error) {
        const Open open = open_[entry];
        open_.erase(entry);
        analysis::Event &made = lock_event(open.who, kind, open.what);
        made.entry = entry;
        made.error = error;
        made.duration_ns = made.t_ns - open.since_ns;
    }

    std::int64_t now_us_ = 0;
    std::uint32_t images_ = 0, streams_ = 0;
    std::uint64_t entries_ = 0;
    std::map<std::uint64_t, Open> open_;
};

}  // namespace planloop::test

#endif
