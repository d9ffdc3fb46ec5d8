// What tests of ownership share: eight files, and who holds what.
#ifndef PLANLOOP_TESTS_SUPPORT_OWNERSHIP_SCENE_H
#define PLANLOOP_TESTS_SUPPORT_OWNERSHIP_SCENE_H

#include <cstdint>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::test {

inline constexpr int kSigkill = 9;

inline Scene scene_with_files() {
    Scene scene;
    for (std::uint32_t i = 1; i <= 8; ++i)
        scene.file(i, std::string("/tmp/") + static_cast<char>('a' + i - 1), 1000 + i);
    return scene;
}

inline std::vector<std::int32_t> holder_pids(const analysis::HeldLock &held) {
    std::vector<std::int32_t> pids;
    for (const analysis::Holder &holder : held.holders) pids.push_back(holder.pid);
    return pids;
}

inline std::string last_reason(const Outcome &outcome) {
    const auto released = outcome.of(analysis::EventKind::lock_released);
    return released.empty() ? "none" : released.back()->reason;
}

}  // namespace planloop::test

#endif
