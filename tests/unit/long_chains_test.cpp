// Rings and chains of thousands that hold and wait. The work is counted in allocations, which are the same on every
// machine: four times as many members may take four times as many, not sixteen.
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <new>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace {

std::size_t allocated_bytes = 0;

}  // namespace

// Kept whole: where one of them alone were inlined, the compiler would take the two for mismatched.
[[gnu::noinline]] void *operator new(std::size_t bytes) {
    allocated_bytes += bytes;
    if (void *made = std::malloc(bytes)) return made;
    throw std::bad_alloc();
}
[[gnu::noinline]] void *operator new(std::size_t bytes, const std::nothrow_t & /*nothrow*/) noexcept {
    allocated_bytes += bytes;
    return std::malloc(bytes);
}
[[gnu::noinline]] void operator delete(void *memory) noexcept {
    std::free(memory);
}
[[gnu::noinline]] void operator delete(void *memory, std::size_t /*bytes*/) noexcept {
    std::free(memory);
}

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Scene;
using test::target;

enum class Order { own, reverse, random };
enum class End { none, unwinds, killed };

// Each holds one lock and asks for that of the next.
Scene ring(std::uint32_t members, Order order, End end) {
    Scene scene;
    std::vector<Actor> actors;
    for (std::uint32_t i = 0; i < members; ++i) {
        scene.file(i + 1, "/tmp/" + std::to_string(i), 1'000 + i);
        actors.push_back(scene.process(static_cast<std::int32_t>(101 + i), "perl"));
        scene.lock(actors[i], target(i + 1, 2 * i + 1));
    }
    std::vector<std::uint32_t> turns(members);
    std::iota(turns.begin(), turns.end(), 0U);
    if (order == Order::reverse) std::reverse(turns.begin(), turns.end());
    if (order == Order::random) std::shuffle(turns.begin(), turns.end(), std::mt19937(1));
    std::vector<std::uint64_t> requests(members);
    for (const std::uint32_t i : turns)
        requests[i] = scene.request(actors[i], target((i + 1) % members + 1, 2 * i + 2));
    if (end == End::none) return scene;
    for (std::uint32_t i = members; i-- > 0;) {
        if (end == End::killed) {
            scene.ended(actors[i].pid, 9);
            continue;
        }
        if (i + 1 == members)
            scene.failed(requests[i], EINTR);
        else
            scene.acquired(requests[i]);
        scene.unlock(actors[i], target(i + 1, 2 * i + 1));
        if (i + 1 != members) scene.unlock(actors[i], target(i + 2, 2 * i + 2));
    }
    return scene;
}

std::size_t bytes_for_ring(std::uint32_t members, Order order, End end) {
    test::VectorSource source = ring(members, order, end).source;
    const std::size_t before = allocated_bytes;
    const Report report = analyse(source, {}, {});
    const std::size_t bytes = allocated_bytes - before;
    std::size_t found = 0;
    for (const Finding &finding : report.findings)
        if (finding.kind == "deadlock") found += finding.participants.size();
    EXPECT_EQ(found, members);
    return bytes;
}

TEST(LongChains, CostWhatTheyAreLong) {
    for (const Order order : {Order::own, Order::reverse, Order::random}) {
        for (const End end : {End::none, End::unwinds, End::killed}) {
            EXPECT_LT(bytes_for_ring(2'400, order, end), 6 * bytes_for_ring(600, order, end))
                << "order " << static_cast<int>(order) << ", end " << static_cast<int>(end);
        }
    }
}

}  // namespace
}  // namespace planloop::analysis
