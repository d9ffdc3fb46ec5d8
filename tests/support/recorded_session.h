// A session of its own for a unit test that records: a planloop home in a temporary folder, into which this process
// records from now on, and what was recorded in it as readable lines.
#ifndef PLANLOOP_TESTS_SUPPORT_RECORDED_SESSION_H
#define PLANLOOP_TESTS_SUPPORT_RECORDED_SESSION_H

#include <fmt/format.h>
#include <stdlib.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "analysis/source/event_source.h"
#include "lockcore/recorder.h"
#include "tests/support/child_process.h"

namespace planloop::testing {

class RecordedSession {
  public:
    RecordedSession() {
        ::setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);  // NOLINT(concurrency-mt-unsafe)
        auto made = create_session("unit");
        if (!made) throw std::runtime_error(made.error().message);
        session_ = *made;
        if (auto recording = record_into(session_); !recording) throw std::runtime_error(recording.error().message);
    }

    const Session &session() const { return session_; }
    const TemporaryFolder &folder() const { return folder_; }

    struct Seen {
        analysis::Event event;
        analysis::ProcessInfo process;  // with the trace of the operation
        analysis::FileInfo file;
    };
    // The lock events so far, in order.
    std::vector<Seen> events() const {
        auto source = analysis::open_session(session_);
        if (!source) throw std::runtime_error(source.error().message);
        std::vector<Seen> seen;
        for (analysis::Event event; (*source)->next(event);) {
            if (event.kind > analysis::EventKind::lock_released) continue;
            const std::uint32_t speaker = event.speaker != 0 ? event.speaker : event.process;
            seen.push_back({event, (*source)->process(speaker), (*source)->file(event.file)});
        }
        return seen;
    }
    // "requested exclusive", "acquired shared", "failed exclusive 11", "released exclusive"
    std::vector<std::string> lines() const {
        constexpr const char *kKinds[] = {"requested", "acquired", "failed", "released"};
        constexpr const char *kModes[] = {"none", "shared", "exclusive"};
        std::vector<std::string> lines;
        for (const Seen &seen : events()) {
            std::string line = fmt::format("{} {}", kKinds[static_cast<int>(seen.event.kind)],
                                           kModes[static_cast<int>(seen.event.mode)]);
            if (seen.event.error != 0) line += fmt::format(" {}", seen.event.error);
            lines.push_back(line);
        }
        return lines;
    }

  private:
    TemporaryFolder folder_;
    Session session_;
};

}  // namespace planloop::testing

#endif
