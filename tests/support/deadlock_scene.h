// What tests of deadlocks share: numbered files, and who takes part in a finding.
#ifndef PLANLOOP_TESTS_SUPPORT_DEADLOCK_SCENE_H
#define PLANLOOP_TESTS_SUPPORT_DEADLOCK_SCENE_H

#include <cstdint>
#include <set>
#include <string>

#include "tests/support/vector_source.h"

namespace planloop::test {

inline void add_files(Scene &scene, std::uint32_t number) {
    for (std::uint32_t i = 1; i <= number; ++i) scene.file(i, "/tmp/" + std::to_string(i), 1000 + i);
}

inline std::set<std::int32_t> pids_of(const analysis::Finding &finding) {
    std::set<std::int32_t> pids;
    for (const analysis::Participant &participant : finding.participants) pids.insert(participant.pid);
    return pids;
}

}  // namespace planloop::test

#endif
