// state.json and the small files beside it on disk: read whole, replaced whole.
//
// A file is written under another name in the same folder (0600), brought to the disk, and renamed over the old one:
// whoever reads sees the old or the new content, also after a crash or on a full disk. What could not be finished is
// removed. Two writers at once are kept apart by SessionLock, not by this.
//
// Errors: one line that names the file. Threads: no state. Signals: not async-signal-safe.
#ifndef PLANLOOP_LOCKCORE_STATE_FILE_H
#define PLANLOOP_LOCKCORE_STATE_FILE_H

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>

#include "lockcore/result.h"
#include "lockcore/session.h"

namespace planloop {

// A plan is kilobytes; what is larger was not written by a planloop.
inline constexpr std::size_t kLargestStateBytes = std::size_t{32} << 20;

inline std::string state_path(const Session &session) {
    return session.directory + "/state.json";
}
inline std::string plan_path(const Session &session) {
    return session.directory + "/PLAN.md";
}

// Missing, empty and too large are errors.
Result<std::string> read_state_file(const Session &session);
// Who else may replace the file: nobody, under a lock, so that what a killed writer left is written over; or others.
enum class Writers : bool { one, several };
Result<void> replace_file(const std::string &path, std::string_view content, Writers writers = Writers::one);

// $PLANLOOP_HOME/current_session. Nothing when it is missing, empty or no session id.
std::optional<std::string> current_session();
Result<void> set_current_session(std::string_view id);

}  // namespace planloop

#endif
