// Programs that ran in the session without the shim: what they locked is not in the recording.
#include <fmt/format.h>

#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>

#include "analysis/detector.h"

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostPrograms = 100;
constexpr std::size_t kMostPids = 16;

const char *cause_words(std::int64_t cause) noexcept {
    switch (static_cast<wire::NotTracedCause>(cause)) {
        case wire::NotTracedCause::static_binary:
            return "it is statically linked, so nothing can be preloaded into it";
        case wire::NotTracedCause::setuid:
            return "it is setuid or has capabilities, and the loader ignores preloads there";
        case wire::NotTracedCause::other_architecture:
            return "it is built for another architecture";
        case wire::NotTracedCause::go_without_libc:
            return "it is a Go program without libc, so nothing can be preloaded into it";
        case wire::NotTracedCause::other_user:
            return "it runs as a user who may not write to the recording, and so does what it starts";
        case wire::NotTracedCause::sandboxed:
            return "from some moment on a seccomp filter forbade it the system calls that recording needs";
        case wire::NotTracedCause::not_attached:
        case wire::NotTracedCause::above_the_run:  // nobody expects it to be
            break;
    }
    return "the recording library is not in it: LD_PRELOAD was taken from its environment by somebody who is not "
           "traced, or leads nowhere from where it runs";
}

class NotTraced : public Detector {
  public:
    using Detector::Detector;

    void event(const Event &event) override {
        if (event.kind != EventKind::not_traced) return;
        if (event.other == static_cast<std::int64_t>(wire::NotTracedCause::above_the_run)) return;
        const std::string &path = model().source.file(event.file).path;
        if (programs_.size() == kMostPrograms && programs_.find({event.other, path}) == programs_.end()) {
            ++not_listed_;
            return;
        }
        Program &program = programs_[{event.other, path}];
        // Who started it told of it, and then the supervisor saw it.
        if (event.pid != 0 && !program.pids.insert(event.pid).second) return;
        if (program.times++ == 0) program.t_ns = event.t_ns;
    }

    void finish(Report &report, const SourceNotes & /*notes*/) override {
        for (const auto &[key, program] : programs_) {
            Finding finding;
            finding.kind = "not_traced";
            finding.severity = Severity::info;
            finding.from_ns = finding.to_ns = program.t_ns - report.from_utc_ns;
            const std::string name = key.second.empty() ? "A program" : key.second;
            finding.summary = fmt::format(
                "{} was not traced{}: {}. Its locks are missing here, and whom it kept waiting "
                "shows as waiting for nobody.",
                name, program.times > 1 ? fmt::format(" ({} times)", program.times) : "", cause_words(key.first));
            for (const std::int32_t pid : program.pids) {
                if (finding.participants.size() == kMostPids) break;
                Participant &participant = finding.participants.emplace_back();
                participant.pid = participant.tid = pid;
                participant.process = name;
            }
            report.findings.push_back(std::move(finding));
        }
        if (not_listed_ > 0)
            report.notes.push_back(fmt::format("{} further untraced programs are not listed", not_listed_));
    }

  private:
    struct Program {
        std::uint64_t times = 0;
        std::int64_t t_ns = 0;
        std::set<std::int32_t> pids;
    };
    std::map<std::pair<std::int64_t, std::string>, Program> programs_;
    std::uint64_t not_listed_ = 0;
};

}  // namespace

std::unique_ptr<Detector> make_not_traced(const Model &model) {
    return std::make_unique<NotTraced>(model);
}

}  // namespace planloop::analysis
