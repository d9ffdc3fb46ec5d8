// Whether planloop is in dev mode, and what is recorded: `$PLANLOOP_HOME/.dev_mode`, which holds `dev`, and
// `.dev_mode.json`, which other programs read too:
//
//   {"mode":"dev","enabled_at":"…Z","repo_path":"/src/planloop","git_commit":"<40 hex>","backup_path":"/…",
//    "features":{"llm_recording":true,"tracing":true,"profiling":true}}
//
// `mode` is off, dev or dogfood; `backup_path` is null or where dogfood keeps the installed binary.
//
// Features: llm_recording is llm_transcripts/, tracing is traces/ and diffs/, profiling is performance.jsonl. Errors
// and lock events are recorded always. Without the file everything is recorded; `dev off` writes one with all three
// off. PLANLOOP_NO_RECORDING=1 outweighs it all: nothing is written.
//
// Errors: a file that cannot be read or is no such JSON counts as missing. Threads: safe but for getenv(3).
#ifndef PLANLOOP_LOCKCORE_DEV_MODE_H
#define PLANLOOP_LOCKCORE_DEV_MODE_H

#include <optional>
#include <string>

#include "lockcore/result.h"

namespace planloop {

struct RecordingFeatures {
    bool llm_recording = true;
    bool tracing = true;
    bool profiling = true;
};

struct DevMode {
    std::string mode = "off";
    std::string enabled_at, repo_path, git_commit, backup_path;  // empty: null
    RecordingFeatures features;
};

std::string dev_mode_marker_path();  // $PLANLOOP_HOME/.dev_mode
std::string dev_mode_path();         // $PLANLOOP_HOME/.dev_mode.json

std::optional<DevMode> read_dev_mode();
// Both files: the marker is there while the mode is not off.
Result<void> write_dev_mode(const DevMode &mode);

// PLANLOOP_NO_RECORDING=1.
bool recording_refused();
// What to record now: all false when recording is refused.
RecordingFeatures recording_features();

}  // namespace planloop

#endif
