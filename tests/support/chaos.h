// Programs without any discipline, for tests of what must hold for every input: they lock, convert, dup, fork, close,
// die and are never told the rules. The same seed makes the same scene.
#ifndef PLANLOOP_TESTS_SUPPORT_CHAOS_H
#define PLANLOOP_TESTS_SUPPORT_CHAOS_H

#include <cerrno>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::test {

inline Scene chaos(unsigned seed) {
    std::mt19937 engine(seed);
    const auto random = [&] { return static_cast<std::uint32_t>(engine()); };
    Scene scene;
    for (std::uint32_t i = 1; i <= 4; ++i) scene.file(i, "/tmp/" + std::to_string(i), 1000 + i);
    std::vector<Actor> actors;
    actors.reserve(64);
    std::int32_t pid = 100;
    for (int i = 0; i < 5; ++i) actors.push_back(scene.process(++pid, "x"));
    std::vector<std::uint64_t> open(100, 0);
    std::uint32_t descriptions = 0;
    for (int step = 0; step < 800; ++step) {
        const std::uint32_t place = random() % static_cast<std::uint32_t>(actors.size());
        const Actor who = actors[place];
        Target what;
        what.file = 1 + random() % 4;
        what.fd = static_cast<std::int32_t>(3 + random() % 4);
        what.description = random() % 5 == 0 ? ++descriptions : 1 + random() % 20;
        what.family = static_cast<wire::Family>(random() % 3);
        what.mode = random() % 2 == 0 ? wire::Mode::shared : wire::Mode::exclusive;
        what.blocking = random() % 2 == 0;
        if (what.family != wire::Family::flock) {
            what.start = random() % 20;
            what.len = random() % 10;
        }
        const std::uint32_t dice = random() % 20;
        if (open[place] != 0) {
            if (dice < 8)
                scene.acquired(open[place]);
            else if (dice < 12)
                scene.failed(open[place], what.blocking ? EINTR : EAGAIN);
            else if (dice == 12)
                scene.ended(who.pid, 9);
            else
                continue;
            open[place] = 0;
            if (dice == 12) actors[place] = scene.process(++pid, "x");
        } else if (dice < 9) {
            open[place] = scene.request(who, what);
        } else if (dice < 13) {
            scene.unlock(who, what);
        } else if (dice < 15) {
            scene.close(who, what.fd, random() % 2 == 0 ? what.file : 0);
        } else if (dice == 15) {
            scene.dup(who, what.fd, static_cast<std::int32_t>(3 + random() % 6));
        } else if (dice == 16 && actors.size() < 30) {
            actors.push_back(scene.fork(who, ++pid, "x"));
        } else if (dice == 17) {
            actors[place] = scene.exec(who, "y");
        } else if (dice == 18) {
            scene.exit(who);
            actors[place] = scene.process(++pid, "x");
        } else {
            scene.sharer(who, what, actors[random() % actors.size()].pid, 3);
        }
    }
    return scene;
}

}  // namespace planloop::test

#endif
