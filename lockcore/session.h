// Sessions: named places that recordings go to, `$PLANLOOP_HOME/sessions/<id>/` (default home: ~/.planloop). The Python
// planloop keeps its plans in the same folders; only `logs/` in them is ours.
//
// Errors: one line that names the id or path. Threads: safe, but getenv(3) must not race with setenv(3). Signals: not
// async-signal-safe. Folders are made 0700: command lines and paths are nobody else's business.
#ifndef PLANLOOP_LOCKCORE_SESSION_H
#define PLANLOOP_LOCKCORE_SESSION_H

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lockcore/result.h"

namespace planloop {

inline constexpr std::size_t kLongestSessionId = 128;

// $PLANLOOP_HOME if set and not empty, else ~/.planloop.
std::string planloop_home();

struct Session {
    std::string id;
    std::string directory;  // <home>/sessions/<id>

    std::string logs_dir() const { return directory + "/logs"; }
    std::string spool_dir() const { return directory + "/logs/spool"; }
    std::string log_file() const { return directory + "/logs/planloop.jsonl"; }
};

struct SessionSummary {
    std::string id;
    std::int64_t last_activity_ns = 0;  // UTC, when something was last recorded; 0: never
    std::uint64_t spool_bytes = 0;      // on disk
    std::uint32_t spools = 0;
};

// Not empty, at most 128 bytes, no '/', no control character, does not start with '.'.
bool valid_session_id(std::string_view id);

// Makes its folders; one that exists is fine.
Result<Session> create_session(std::string_view id);

// By exact id, by a prefix that only one session has, or `latest`: the one last recorded into.
Result<Session> find_session(std::string_view wanted);

// Newest first; those never recorded into last, by name.
std::vector<SessionSummary> list_sessions();

// Paths of the spool files of a session, by name. Errors when the folder exists but cannot be read.
Result<std::vector<std::string>> list_spools(const Session &session);

// A name nobody chose: `flock-20261122T080002Z-3fa1`.
std::string session_name_for(std::string_view program);

// Text from outside, fit for a one-line message: control characters become '?', long text is cut.
std::string printable(std::string_view text);

}  // namespace planloop

#endif
