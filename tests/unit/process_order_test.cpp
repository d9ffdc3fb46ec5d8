#include "analysis/process_order.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;

constexpr std::int64_t kTickUs = 10'000;

// A tree of processes that act, make children, wait for them and end, each once it has waited for all its children. It
// is recorded as the library records it: a process speaks from its first act on, or from when it is told of the end of
// a child that spoke, and begins with the children that it has then.
class Tree {
  public:
    struct Act {
        std::size_t process;
        std::int64_t t_ns;
        std::set<std::size_t> after;  // the acts that are before it whatever the schedule
    };

    explicit Tree(std::uint32_t seed) : random_(seed) {
        make_process(kNobody);
        while (!processes_.front().ended) step();
    }

    test::Scene scene;
    std::vector<Act> acts;

    std::int32_t pid(std::size_t process) const { return processes_[process].actor.pid; }

  private:
    static constexpr std::size_t kNobody = ~std::size_t{0};
    static constexpr std::size_t kMost = 40;
    struct Process {
        Actor actor;  // image 0: it has not spoken
        std::size_t parent = kNobody;
        std::uint64_t start_ticks = 0;
        std::set<std::size_t> known;  // acts that are before what it does now
        std::vector<std::size_t> children;
        bool ended = false;
    };

    std::size_t below(std::size_t limit) { return std::uniform_int_distribution<std::size_t>(0, limit - 1)(random_); }

    void make_process(std::size_t parent) {
        Process made;
        made.actor.pid = static_cast<std::int32_t>(1000 + processes_.size());
        made.parent = parent;
        made.start_ticks = static_cast<std::uint64_t>(1000 + scene.now_us() / kTickUs);
        if (parent != kNobody) {
            made.known = processes_[parent].known;
            processes_[parent].children.push_back(processes_.size());
            if (processes_[parent].actor.image != 0) {
                const bool forks = below(2) == 0;
                scene.event(processes_[parent].actor, forks ? EventKind::process_forked : EventKind::child_made).other =
                    made.actor.pid;
            }
        }
        processes_.push_back(made);
    }

    void speak(Process &process) {
        if (process.actor.image != 0) return;
        Actor parent;
        if (process.parent != kNobody) parent.pid = pid(process.parent);
        process.actor = scene.process(process.actor.pid, "p", parent, process.start_ticks);
        for (const std::size_t child : process.children)
            scene.event(process.actor, EventKind::child_made).other = pid(child);
    }

    void wait(Process &process, std::size_t place) {
        const Process &child = processes_[process.children[place]];
        if (child.actor.image != 0) speak(process);
        if (process.actor.image != 0)
            scene.event(process.actor, EventKind::child_wait_ended).start = static_cast<std::uint64_t>(child.actor.pid);
        process.known.insert(child.known.begin(), child.known.end());
        process.children.erase(process.children.begin() + static_cast<std::ptrdiff_t>(place));
    }

    bool none_left(const Process &process) const {
        return std::all_of(process.children.begin(), process.children.end(),
                           [this](std::size_t child) { return processes_[child].ended; });
    }

    // Who speaks and ignores SIGCHLD hears only that none is left: of all its children, or of the one that it asks for.
    void hear_that_none_is_left(Process &process, std::int64_t asked, std::size_t place) {
        Event &told = scene.event(process.actor, EventKind::child_wait_ended);
        told.start = static_cast<std::uint64_t>(std::int64_t{wire::kNoChildLeft});
        told.other = asked;
        for (std::size_t i = 0; i < process.children.size(); ++i) {
            if (asked != -1 && i != place) continue;
            const Process &child = processes_[process.children[i]];
            process.known.insert(child.known.begin(), child.known.end());
        }
        const auto first = process.children.begin() + static_cast<std::ptrdiff_t>(place);
        process.children.erase(asked == -1 ? process.children.begin() : first,
                               asked == -1 ? process.children.end() : first + 1);
    }

    void step() {
        const std::size_t at = below(processes_.size());
        if (processes_[at].ended) return;
        scene.at(scene.now_us() + static_cast<std::int64_t>(below(3) == 0 ? below(30'000) : below(50)));
        const std::size_t what = below(10);
        if (what < 3 && processes_.size() < kMost) return make_process(at);
        Process &process = processes_[at];
        if (what < 6) {
            speak(process);
            acts.push_back({at, test::Scene::kEpochNs + scene.now_us() * 1'000, process.known});
            process.known.insert(acts.size() - 1);
            scene.at(scene.now_us() + 1);
            return;
        }
        if (!process.children.empty()) {
            const std::size_t place = below(process.children.size());
            const bool silent = process.actor.image != 0 && below(3) == 0;
            if (silent && below(2) == 0 && none_left(process)) return hear_that_none_is_left(process, -1, 0);
            if (!processes_[process.children[place]].ended) return;
            if (silent) return hear_that_none_is_left(process, pid(process.children[place]), place);
            return wait(process, place);
        }
        if (processes_.size() < kMost / 2 && below(4) != 0) return;
        if (process.actor.image != 0) scene.exit(process.actor);
        process.ended = true;
    }

    std::mt19937 random_;
    std::vector<Process> processes_;
};

TEST(ProcessOrder, IsThatOfForksAndWaitsInRandomTrees) {
    const char *given = std::getenv("PLANLOOP_SEED");
    const auto first = static_cast<std::uint32_t>(given != nullptr ? std::atoi(given) : 1);
    std::size_t ordered = 0, free = 0;
    for (std::uint32_t seed = first; seed < first + 300; ++seed) {
        Tree tree(seed);
        ProcessOrder order(tree.scene.source);
        std::vector<ProcessOrder::Place> places;
        std::size_t next = 0;
        const auto note_acts_before = [&](std::int64_t t_ns) {
            for (; next < tree.acts.size() && tree.acts[next].t_ns < t_ns; ++next)
                places.push_back(order.place(tree.pid(tree.acts[next].process), tree.acts[next].t_ns));
        };
        for (const Event &event : tree.scene.source.events) {
            note_acts_before(event.t_ns);
            order.event(event);
        }
        note_acts_before(INT64_MAX);
        for (std::size_t one = 0; one < places.size(); ++one) {
            for (std::size_t other = 0; other < places.size(); ++other) {
                if (tree.acts[one].process == tree.acts[other].process) continue;
                const bool expected = tree.acts[other].after.count(one) != 0;
                ++(expected ? ordered : free);
                ASSERT_EQ(order.before(places[one], places[other]), expected)
                    << "PLANLOOP_SEED=" << seed << ": " << tree.pid(tree.acts[one].process) << " at "
                    << tree.acts[one].t_ns << ", " << tree.pid(tree.acts[other].process) << " at "
                    << tree.acts[other].t_ns;
            }
        }
    }
    EXPECT_GT(ordered, 10'000u);
    EXPECT_GT(free, 10'000u);
}

// Where nobody says when the one was waited for, that it had ended counts.
TEST(ProcessOrder, EndStandsForAWaitThatNobodyTold) {
    for (const bool over_first : {true, false}) {
        test::Scene scene;
        Actor shell;
        shell.pid = 100;
        const Actor one = scene.process(101, "one", shell, 5);
        if (over_first) scene.exit(one);
        scene.at(50'000);
        const Actor two = scene.process(102, "two", shell, 10);
        if (!over_first) scene.exit(one);
        ProcessOrder order(scene.source);
        for (const Event &event : scene.source.events) order.event(event);
        const std::int64_t first_ns = test::Scene::kEpochNs, last_ns = first_ns + 60'000'000;
        EXPECT_EQ(order.before(order.place(one.pid, first_ns), order.place(two.pid, last_ns)), over_first);
    }
}

}  // namespace
}  // namespace planloop::analysis
