// Small random programs, played in random schedules, against a search over every schedule that there is.
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "tests/support/vector_source.h"

namespace planloop::analysis {
namespace {

using test::Actor;
using test::Outcome;
using test::Scene;
using test::Target;
using wire::Mode;

constexpr std::size_t kNobody = ~std::size_t{0};

struct Step {
    std::uint32_t file = 0;
    Mode mode{};  // none: unlock
};

// What one process does, whatever happens; it holds nothing at the end.
struct Program {
    std::vector<Step> steps;
    std::size_t after = kNobody;  // a shell of theirs starts it only when it has waited for the end of that one
    std::size_t shell = 0;        // there are as many as programs
};

using Programs = std::vector<Program>;
using State = std::vector<std::size_t>;  // of each program, how many steps are behind it

Mode held_mode(const Program &program, std::size_t done, std::uint32_t file) {
    Mode mode = Mode::none;
    for (std::size_t i = 0; i < done; ++i)
        if (program.steps[i].file == file) mode = program.steps[i].mode;
    return mode;
}

bool finished(const Programs &programs, const State &state, std::size_t who) {
    return state[who] == programs[who].steps.size();
}

bool started(const Programs &programs, const State &state, std::size_t who) {
    return programs[who].after == kNobody || finished(programs, state, programs[who].after);
}

// Who keeps `who` from its next step.
std::vector<std::size_t> blockers(const Programs &programs, const State &state, std::size_t who) {
    const Step &next = programs[who].steps[state[who]];
    std::vector<std::size_t> found;
    for (std::size_t other = 0; other < programs.size() && next.mode != Mode::none; ++other) {
        const Mode held = other == who ? Mode::none : held_mode(programs[other], state[other], next.file);
        if (held != Mode::none && (held == Mode::exclusive || next.mode == Mode::exclusive)) found.push_back(other);
    }
    return found;
}

bool can_step(const Programs &programs, const State &state, std::size_t who) {
    return !finished(programs, state, who) && started(programs, state, who) && blockers(programs, state, who).empty();
}

bool stuck(const Programs &programs, const State &state) {
    for (std::size_t who = 0; who < programs.size(); ++who)
        if (can_step(programs, state, who)) return false;
    for (std::size_t who = 0; who < programs.size(); ++who)
        if (!finished(programs, state, who)) return true;
    return false;
}

using Locks = std::set<std::uint32_t>;

// The locks of every circle of waits in a state, by walking along all waits from each program.
void add_circles(const Programs &programs, const State &state, std::vector<std::size_t> &path, std::set<Locks> &found) {
    for (const std::size_t next : blockers(programs, state, path.back())) {
        if (next == path.front()) {
            Locks locks;
            for (const std::size_t who : path) locks.insert(programs[who].steps[state[who]].file);
            found.insert(locks);
        } else if (!finished(programs, state, next) && std::find(path.begin(), path.end(), next) == path.end()) {
            path.push_back(next);
            add_circles(programs, state, path, found);
            path.pop_back();
        }
    }
}

// Every state that some schedule reaches, each once.
void visit_all(const Programs &programs, const State &state, std::set<State> &seen, std::set<Locks> &circles) {
    if (!seen.insert(state).second) return;
    for (std::size_t who = 0; who < programs.size(); ++who) {
        if (finished(programs, state, who) || !started(programs, state, who)) continue;
        if (can_step(programs, state, who)) {
            State next = state;
            ++next[who];
            visit_all(programs, next, seen, circles);
        } else {
            std::vector<std::size_t> path{who};
            add_circles(programs, state, path, circles);
        }
    }
}

// Circles that some schedule closes, without those that contain another one's locks.
std::set<Locks> naive_circles(const Programs &programs) {
    std::set<State> seen;
    std::set<Locks> all, least;
    visit_all(programs, State(programs.size()), seen, all);
    for (const Locks &one : all) {
        const bool has_less = std::any_of(all.begin(), all.end(), [&](const Locks &other) {
            return other != one && std::includes(one.begin(), one.end(), other.begin(), other.end());
        });
        if (!has_less) least.insert(one);
    }
    return least;
}

// For a failure's message: "+1 +2s -1 -2 after 0; "
std::string words_of(const Programs &programs) {
    std::string words;
    for (const Program &program : programs) {
        for (const Step &step : program.steps) {
            words += step.mode == Mode::none ? "-" : "+";
            words += std::to_string(step.file) + (step.mode == Mode::shared ? "s " : " ");
        }
        if (program.after != kNobody) words += "after " + std::to_string(program.after);
        words += "; ";
    }
    return words;
}

std::string lock_id(std::uint32_t file) {
    return "flock:fe:01:" + std::to_string(1000 + file);
}

// One schedule as the recorder would have seen it.
class Play {
  public:
    Play(const Programs &programs, std::uint32_t files) : programs_(programs), state_(programs.size()) {
        for (std::uint32_t file = 1; file <= files; ++file)
            scene_.file(file, "/tmp/" + std::to_string(file), 1000 + file);
        const Actor root = scene_.process(100, "root");
        for (std::size_t shell = 0; shell < programs.size(); ++shell)
            shells_.push_back(scene_.fork(root, static_cast<std::int32_t>(201 + shell), "shell"));
        actors_.resize(programs.size());
        waiting_.resize(programs.size());
        for (std::size_t who = 0; who < programs.size(); ++who)
            if (programs[who].after == kNobody) start(who);
    }

    // Picks who goes on by `choose(how many)`, until nobody can.
    template <class Choose>
    void run(Choose choose) {
        for (;;) {
            std::vector<std::size_t> ready;
            for (std::size_t who = 0; who < programs_.size(); ++who) {
                if (finished(programs_, state_, who) || !started(programs_, state_, who)) continue;
                if (can_step(programs_, state_, who) || waiting_[who] == 0) ready.push_back(who);
            }
            if (ready.empty()) return;
            step(ready[choose(ready.size())]);
        }
    }
    bool hangs() const { return stuck(programs_, state_); }
    Outcome outcome() const { return scene_.play(); }

  private:
    void start(std::size_t who) {
        actors_[who] = scene_.fork(shells_[programs_[who].shell], static_cast<std::int32_t>(101 + who), "child");
    }
    Target target(std::size_t who, const Step &step) const {
        const auto description = static_cast<std::uint32_t>(100 * (who + 1)) + step.file;
        return test::target(step.file, description, wire::Family::flock, step.mode);
    }
    void step(std::size_t who) {
        const Step &next = programs_[who].steps[state_[who]];
        const Target what = target(who, next);
        if (next.mode == Mode::none) {
            scene_.unlock(actors_[who], what);
        } else {
            if (waiting_[who] == 0) waiting_[who] = scene_.request(actors_[who], what);
            if (!can_step(programs_, state_, who)) return;  // it waits from now on
            scene_.acquired(waiting_[who]);
            waiting_[who] = 0;
        }
        ++state_[who];
        if (!finished(programs_, state_, who)) return;
        scene_.exit(actors_[who]);
        const Actor &shell = shells_[programs_[who].shell];
        scene_.waits_for_child(shell, actors_[who].pid);
        scene_.event(shell, EventKind::child_wait_ended).start = static_cast<std::uint64_t>(actors_[who].pid);
        for (std::size_t other = 0; other < programs_.size(); ++other)
            if (programs_[other].after == who) start(other);
    }

    const Programs &programs_;
    State state_;
    Scene scene_;
    std::vector<Actor> shells_, actors_;
    std::vector<std::uint64_t> waiting_;  // entry of the open request
};

class Schedules : public ::testing::Test {
  protected:
    Schedules() : seed_(std::random_device{}()), engine_(seed_) { std::cout << "seed " << seed_ << '\n'; }

    std::size_t random(std::size_t bound) { return engine_() % bound; }
    // Rounds of: take some files one after the other, give all back.
    Programs random_programs(std::uint32_t files, bool ordered) {
        Programs programs(2 + random(3));
        for (std::size_t who = 0; who < programs.size(); ++who) {
            programs[who].shell = who;
            if (who > 0 && random(4) == 0) {
                programs[who].shell = programs[random(who)].shell;
                for (std::size_t other = 0; other < who; ++other)
                    if (programs[other].shell == programs[who].shell) programs[who].after = other;
            }
            for (std::size_t rounds = 1 + random(programs.size() > 3 ? 1 : 2); rounds > 0; --rounds) {
                std::vector<std::uint32_t> chosen;
                for (std::uint32_t file = 1; file <= files; ++file) chosen.push_back(file);
                std::shuffle(chosen.begin(), chosen.end(), engine_);
                chosen.resize(1 + random(3));
                if (ordered) std::sort(chosen.begin(), chosen.end());
                for (const std::uint32_t file : chosen)
                    programs[who].steps.push_back({file, random(4) == 0 ? Mode::shared : Mode::exclusive});
                for (const std::uint32_t file : chosen) programs[who].steps.push_back({file, Mode::none});
            }
        }
        return programs;
    }
    static std::set<Locks> told(const Outcome &outcome, std::string_view kind) {
        std::set<Locks> found;
        for (const Finding &finding : outcome.report.findings) {
            if (finding.kind != kind) continue;
            Locks locks;
            for (const std::string &id : finding.locks)
                for (std::uint32_t file = 1; file <= kFiles; ++file)
                    if (id == lock_id(file)) locks.insert(file);
            found.insert(locks);
        }
        return found;
    }

    static constexpr std::uint32_t kFiles = 5;
    const unsigned seed_;
    std::mt19937 engine_;
};

TEST_F(Schedules, OfOrderedLockingNothingIsReported) {
    for (int run = 0; run < 1'000; ++run) {
        const Programs programs = random_programs(kFiles, true);
        Play play(programs, kFiles);
        play.run([&](std::size_t bound) { return random(bound); });
        const Outcome outcome = play.outcome();
        ASSERT_TRUE(outcome.report.findings.empty())
            << outcome.report.findings.front().summary << " seed " << seed_ << " run " << run;
    }
}

TEST_F(Schedules, OfUnorderedLockingExactlyWhatSomeScheduleLeadsTo) {
    std::size_t hung = 0, inversions = 0;
    for (int run = 0; run < 1'000; ++run) {
        const Programs programs = random_programs(kFiles, false);
        const std::set<Locks> expected = naive_circles(programs);
        inversions += expected.size();
        Play lucky(programs, kFiles);  // one after the other: nobody ever waits
        lucky.run([](std::size_t) { return std::size_t{0}; });
        ASSERT_FALSE(lucky.hangs());
        EXPECT_EQ(told(lucky.outcome(), "lock_order_inversion"), expected)
            << words_of(programs) << "seed " << seed_ << " run " << run;
        EXPECT_TRUE(told(lucky.outcome(), "deadlock").empty()) << "seed " << seed_ << " run " << run;
        Play play(programs, kFiles);
        play.run([&](std::size_t bound) { return random(bound); });
        EXPECT_EQ(!told(play.outcome(), "deadlock").empty(), play.hangs()) << "seed " << seed_ << " run " << run;
        if (play.hangs())
            ++hung;
        else
            EXPECT_EQ(told(play.outcome(), "lock_order_inversion"), expected)
                << words_of(programs) << "seed " << seed_ << " run " << run;
        if (HasFailure()) break;
    }
    EXPECT_GT(hung, 0u);
    EXPECT_GT(inversions, 0u);
}

}  // namespace
}  // namespace planloop::analysis
