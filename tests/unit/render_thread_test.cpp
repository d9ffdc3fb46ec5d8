#include "analysis/render/render_thread.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostAhead = 1024 + 256;  // entries, the one that is being rendered not counted

TimelineEntry entry_of(std::uint64_t number) {
    TimelineEntry entry;
    entry.entry = number;
    entry.path = "/tmp/" + std::to_string(number);
    entry.blocked_by.resize(number % 3);
    return entry;
}

class RenderThreads : public testing::TestWithParam<std::size_t> {};  // by processors

TEST_P(RenderThreads, RenderEachEntryOnceAndInOrder) {
    for (const std::uint64_t count :
         {0U, 1U, 4'095U, 4'096U, 4'097U, 4'351U, 4'352U, 4'353U, 5'119U, 5'120U, 5'121U, 20'000U}) {
        std::vector<std::string> expected, rendered;
        RenderThread thread(
            [&](const TimelineEntry &entry) {
                rendered.push_back(entry.path + ' ' + std::to_string(entry.blocked_by.size()));
            },
            GetParam());
        for (std::uint64_t number = 0; number < count; ++number) {
            thread.add(entry_of(number));
            expected.push_back("/tmp/" + std::to_string(number) + ' ' + std::to_string(number % 3));
        }
        thread.finish();
        EXPECT_EQ(rendered, expected) << count;
    }
}

TEST_P(RenderThreads, PassBackWhatRenderingThrows) {
    for (const std::uint64_t bad : {0U, 100U, 4'096U, 10'000U}) {
        std::uint64_t rendered = 0;
        const auto render = [&](const TimelineEntry &entry) {
            if (entry.entry == bad) throw std::runtime_error("full");
            ++rendered;
        };
        const auto whole = [&] {
            RenderThread thread(render, GetParam());
            for (std::uint64_t number = 0; number < 20'000; ++number) thread.add(entry_of(number));
            thread.finish();
        };
        EXPECT_THROW(whole(), std::runtime_error) << bad;
        EXPECT_EQ(rendered, bad) << "nothing after it";
    }
}

TEST_P(RenderThreads, MayBeLeftBeforeTheEnd) {
    std::uint64_t rendered = 0;
    {
        RenderThread thread([&](const TimelineEntry &) { ++rendered; }, GetParam());
        for (std::uint64_t number = 0; number < 8'000; ++number) thread.add(entry_of(number));
    }
    EXPECT_LE(rendered, 8'000U);
}

INSTANTIATE_TEST_SUITE_P(Processors, RenderThreads, testing::Values(1, 2));

TEST(RenderThread, IsAheadByABoundedNumberOfEntries) {
    std::atomic<std::uint64_t> added{0};
    std::uint64_t most = 0;
    RenderThread thread(
        [&](const TimelineEntry &entry) {
            // Now and then, time for as many as may be.
            for (int i = 0; i < 100 && entry.entry % 256 == 0; ++i) std::this_thread::yield();
            most = std::max(most, added.load() - entry.entry);
        },
        2);
    for (std::uint64_t number = 0; number < 20'000; ++number) {
        thread.add(entry_of(number));
        added.store(number + 1);
    }
    thread.finish();
    EXPECT_LE(most, kMostAhead);
}

TEST(RenderThread, OfOneProcessorOrOfAFewEntriesIsTheCallers) {
    const std::thread::id here = std::this_thread::get_id();
    for (const std::size_t processors : {1U, 2U}) {
        std::vector<bool> rendered_here;
        RenderThread thread([&](const TimelineEntry &) { rendered_here.push_back(std::this_thread::get_id() == here); },
                            processors);
        for (std::uint64_t number = 0; number < RenderThread::kAlone + 2; ++number) thread.add(entry_of(number));
        thread.finish();
        std::vector<bool> expected(RenderThread::kAlone, true);
        expected.insert(expected.end(), 2, processors == 1);
        EXPECT_EQ(rendered_here, expected);
    }
}

}  // namespace
}  // namespace planloop::analysis
