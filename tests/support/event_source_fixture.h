// A session of its own for a test of event sources: spools and log lines go in, events come out.
#ifndef PLANLOOP_TESTS_SUPPORT_EVENT_SOURCE_FIXTURE_H
#define PLANLOOP_TESTS_SUPPORT_EVENT_SOURCE_FIXTURE_H

#include <gtest/gtest.h>

#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "analysis/source/event_source.h"
#include "lockcore/jsonl.h"
#include "tests/support/spool_fixture.h"
#include "tests/support/temp_folder.h"

namespace planloop::analysis {

constexpr auto kEpoch = static_cast<std::int64_t>(test::kEpochNs);

using Outline = std::vector<std::string>;

class EventSourceTest : public ::testing::Test {
  public:
    ~EventSourceTest() override { unsetenv("PLANLOOP_HOME"); }

  protected:
    EventSourceTest() {
        setenv("PLANLOOP_HOME", folder_.path().c_str(), 1);
        session_ = *create_session("s");
    }

    std::string spool_path(const std::string &name = "locks-v1-00000001.spool") const {
        return session_.spool_dir() + "/" + name;
    }
    void write_log(const std::string &text) const { std::ofstream(session_.log_file(), std::ios::app) << text; }
    std::unique_ptr<EventSource> open(const SourceOptions &options = {}) const {
        auto source = open_session(session_, options);
        return source ? std::move(*source) : nullptr;
    }
    static std::vector<Event> read(EventSource &source) {
        std::vector<Event> events;
        Event event;
        while (source.next(event)) events.push_back(event);
        return events;
    }
    std::vector<Event> read_spool(const test::SpoolFixture &spool) const {
        spool.write(spool_path());
        const auto source = open();
        return read(*source);
    }
    // "requested 10" for each event: kind and time since the epoch of the fixture.
    static std::vector<std::string> outline(const std::vector<Event> &events) {
        static constexpr const char *kNames[] = {"requested", "acquired", "failed",  "released", "closed",
                                                 "duplicate", "forked",   "started", "exec",     "exiting",
                                                 "ended",     "sharer",   "wait",    "waited",   "not_traced"};
        std::vector<std::string> lines;
        lines.reserve(events.size());
        for (const Event &event : events) {
            lines.push_back(std::string(kNames[static_cast<std::size_t>(event.kind)]) + " " +
                            std::to_string(event.t_ns - kEpoch));
        }
        return lines;
    }
    static std::string line(std::string_view event, std::int64_t after_ns, std::string_view entry,
                            std::string_view source, std::string_view spool = "", std::int32_t pid = 500) {
        LockLine fields;
        fields.utc_ns = kEpoch + after_ns;
        fields.event = event;
        fields.trace_id = "tr_20270115080000_abcdef";
        fields.operation = "update";
        fields.lock_entry_id = entry;
        if (event == "lock_acquired") fields.wait_ns = 1'234;
        fields.session_id = "s";
        fields.pid = pid;
        fields.tid = pid + 1;
        fields.process = "agent";
        fields.source = source;
        fields.lock_id = "named_mutex:queue";
        fields.family = "named_mutex";
        fields.mode = "exclusive";
        fields.spool = spool;
        std::string out;
        append_lock_line(out, fields);
        return out;
    }

    test::TempFolder folder_;
    Session session_;
};

}  // namespace planloop::analysis

#endif
