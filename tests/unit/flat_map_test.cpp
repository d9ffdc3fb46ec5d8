#include "analysis/flat_map.h"

#include <gtest/gtest.h>

#include <iostream>
#include <random>
#include <unordered_map>

namespace planloop::analysis {
namespace {

TEST(FlatMap, AgreesWithTheStandardMapOverRandomOperations) {
    const unsigned seed = std::random_device{}();
    std::cout << "seed " << seed << '\n';
    std::mt19937 random(seed);
    FlatMap map;
    std::unordered_map<std::uint64_t, Index> model;
    for (int step = 0; step < 200'000; ++step) {
        const std::uint64_t key = random() % 700 * (random() % 2 == 0 ? 1u : 0x100000000u);
        if (random() % 2 == 0) {
            const auto value = static_cast<Index>(random());
            map.put(key, value);
            model[key] = value;
        } else {
            map.erase(key);
            model.erase(key);
        }
        ASSERT_EQ(map.size(), model.size()) << "seed " << seed;
        const std::uint64_t asked = random() % 700;
        const auto at = model.find(asked);
        ASSERT_EQ(map.find(asked), at == model.end() ? kNone : at->second) << "seed " << seed;
    }
    for (const auto &[key, value] : model) ASSERT_EQ(map.find(key), value) << "seed " << seed;
}

TEST(Pool, GivesAwayWhatWasReleasedAndKeepsAddresses) {
    struct Item {
        int value = 0;
        void clear() { value = 0; }
    };
    Pool<Item> pool;
    const Index first = pool.make();
    pool[first].value = 7;
    const Item *address = &pool[first];
    for (int i = 0; i < 1'000; ++i) pool.make();
    EXPECT_EQ(&pool[first], address);
    pool.release(first);
    EXPECT_EQ(pool.make(), first);
    EXPECT_EQ(pool[first].value, 0);
}

}  // namespace
}  // namespace planloop::analysis
