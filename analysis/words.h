// Words for summaries: how long, who, which lock, which signal.
#ifndef PLANLOOP_ANALYSIS_WORDS_H
#define PLANLOOP_ANALYSIS_WORDS_H

#include <cstdint>
#include <string>
#include <vector>

#include "analysis/model.h"
#include "analysis/report.h"

namespace planloop::analysis {

std::string duration_words(std::int64_t ns);  // "1.2 s", "340 ms", "12 µs"; cut, as in tables
std::string process_words(const Model &model, std::uint32_t image, std::int32_t pid);  // "perl 101"
// The same with the thread, when it is not the process' first.
std::string thread_words(const Model &model, std::uint32_t image, std::int32_t pid, std::int32_t tid);
// Who it is, for a finding; neither holds nor waits.
Participant participant_of(const Model &model, std::uint32_t image, std::int32_t pid, std::int32_t tid);
Starter starter_of(const Model &model, std::uint32_t image);
// ", started by bash 100 (./backup.sh)", or nothing when it is not known.
std::string starter_words(const Starter &starter);
std::string lock_words(const Model &model, Index lock);  // its path, or its id when it has none
std::string signal_words(int signal);                    // "signal 9 (SIGKILL)"
// "was killed by signal 9 (SIGKILL)", "exited with status 1", "ended"
std::string death_words(std::int64_t wait_status);
// "a", "a and b", "a, b and c"; beyond `most` names, how many more there are.
std::string list_words(const std::vector<std::string> &names, std::size_t most = 8);

}  // namespace planloop::analysis

#endif
