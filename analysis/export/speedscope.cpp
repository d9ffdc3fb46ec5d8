// speedscope's file format (https://www.speedscope.app/file-format-schema.json): two sampled profiles, wait time and
// hold time, in which a stack is process, call site, lock. Summed up as they come, so the file and the memory grow with
// call sites and locks. A wait that brought no lock has a frame more that says what became of it.
#include <fmt/format.h>

#include <cstddef>
#include <iterator>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "analysis/call_site.h"
#include "analysis/export/format.h"
#include "lockcore/jsonl.h"

namespace planloop::analysis {
namespace {

class Frames {
  public:
    std::size_t of(const std::string &name, const std::string &file = {}, std::uint32_t line = 0) {
        const auto [at, made] = index_.try_emplace({name, file, line}, index_.size());
        if (!made) return at->second;
        json_ += json_.empty() ? "\n{\"name\":" : ",\n{\"name\":";
        append_json_string(json_, name);
        if (!file.empty()) {
            json_ += ",\"file\":";
            append_json_string(json_, file);
        }
        if (line != 0) fmt::format_to(std::back_inserter(json_), ",\"line\":{}", line);
        json_ += '}';
        return at->second;
    }
    const std::string &json() const { return json_; }

  private:
    std::map<std::tuple<std::string, std::string, std::uint32_t>, std::size_t> index_;
    std::string json_;
};

struct Profile {
    std::string_view name;
    std::map<std::vector<std::size_t>, std::int64_t> stacks{};
};

std::string json_of(const Profile &profile) {
    std::string samples, weights;
    std::int64_t total = 0;
    for (const auto &[stack, ns] : profile.stacks) {
        samples += samples.empty() ? "[" : ",[";
        samples += fmt::format("{}]", fmt::join(stack, ","));
        fmt::format_to(std::back_inserter(weights), "{}{}", weights.empty() ? "" : ",", ns);
        total += ns;
    }
    return fmt::format(
        R"({{"type":"sampled","name":"{}","unit":"nanoseconds","startValue":0,"endValue":{},"samples":[{}],"weights":[{}]}})",
        profile.name, total, samples, weights);
}

class Speedscope : public Exporter {
  public:
    explicit Speedscope(const Write &write) : write_(write) {}

    void acquisition(const Acquisition &taken) override {
        const std::vector<std::size_t> stack = stack_of(taken.call);
        wait_.stacks[stack] += taken.call.wait_ns;
        hold_.stacks[stack] += taken.hold_ns;
    }
    void vain_wait(const TimelineEntry &wait) override {
        std::vector<std::size_t> stack = stack_of(wait);
        stack.push_back(frames_.of("(in vain: " + vain_outcome(wait) + ")"));
        wait_.stacks[stack] += wait.wait_ns;
    }
    void finish(const Report &report) override {
        std::string name;
        append_json_string(name, report.session);
        write_(fmt::format(R"({{"$schema":"https://www.speedscope.app/file-format-schema.json","exporter":"planloop",)"
                           R"("name":{},"activeProfileIndex":0,"shared":{{"frames":[{}]}},"profiles":[)",
                           name, frames_.json()));
        write_(fmt::format("\n{},\n{}]}}\n", json_of(wait_), json_of(hold_)));
    }

  private:
    std::vector<std::size_t> stack_of(const TimelineEntry &call) {
        const std::string lock = call.path.empty() ? call.lock : fmt::format("{} ({})", call.path, call.lock);
        const CallSite *const site = call.call_site;
        const std::size_t caller = site == nullptr || !site->known()
                                       ? frames_.of("(call site not known)")
                                       : frames_.of(call_site_words(*site), site->file, site->line);
        return {frames_.of(call.process), caller, frames_.of(lock)};
    }

    const Write &write_;
    Frames frames_;
    Profile wait_{"Wait time by call site and lock"}, hold_{"Hold time by call site and lock"};
};

}  // namespace

std::unique_ptr<Exporter> make_speedscope(const Write &write) {
    return std::make_unique<Speedscope>(write);
}

}  // namespace planloop::analysis
