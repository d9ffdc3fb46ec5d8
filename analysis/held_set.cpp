#include "analysis/held_set.h"

#include <algorithm>

namespace planloop::analysis {
namespace {

constexpr int kGenerations = 8;

std::uint64_t lasting_owner(const Model &model, wire::Family family, Index owner) {
    const auto tagged = [](std::uint64_t tag, std::uint64_t value) { return tag << 40 | value; };
    switch (owner_kind(family)) {
        case wire::Owner::description: {
            const std::vector<std::uint32_t> &numbers = model.table.description(owner).numbers;
            return numbers.empty() ? tagged(1, owner) : tagged(2, numbers.front());
        }
        case wire::Owner::process:
            return tagged(3, static_cast<std::uint32_t>(model.table.process(owner).pid));
        case wire::Owner::thread:
            break;
    }
    return tagged(4, model.table.thread(owner).stream);
}

bool is_ancestor(const Model &model, std::int32_t pid, Index process) {
    for (int i = 0; i < kGenerations && process != kNone; ++i) {
        const std::int32_t parent = model.table.process(process).parent_pid;
        if (parent == pid) return true;
        process = parent > 0 ? model.table.find_pid(parent) : kNone;
    }
    return false;
}

bool waits_for_child(const Model &model, Index process) {
    const std::vector<Index> &threads = model.table.process(process).threads;
    return !threads.empty() && std::all_of(threads.begin(), threads.end(),
                                           [&](Index thread) { return model.table.thread(thread).waits_for_child; });
}

}  // namespace

LockPart wanted_part(const Model &model, const Request &request) {
    return {request.lock,
            request.domain,
            request.family,
            request.mode,
            request.first,
            request.last,
            lasting_owner(model, request.family, request.owner),
            false,
            request.site};
}

void held_parts(const Model &model, const Request &request, std::size_t most, std::vector<LockPart> &out) {
    const auto add = [&](Index at) {
        const Ranges &ranges = model.ranges[at];
        std::uint64_t owner = 0;
        for (const RangeMap::Segment &segment : ranges.map.segments()) {
            const Hold &hold = model.holds[segment.hold];
            bool borrowed = false;
            if (hold.pid == request.pid) {
                if (hold.stream != request.stream && hold.tid != request.tid) continue;
            } else {
                const Index taker = model.table.find_pid(hold.pid);
                if (taker != kNone) {
                    if (!is_ancestor(model, hold.pid, request.process)) continue;
                    borrowed = !waits_for_child(model, taker);
                }
            }
            if (out.size() >= most) return;
            if (owner == 0) owner = lasting_owner(model, ranges.family, ranges.owner);
            out.push_back({hold.lock, ranges.domain, ranges.family, hold.mode, segment.first, segment.last, owner,
                           borrowed, hold.site});
        }
    };
    const Process &process = model.table.process(request.process);
    for (const Index at : process.owned) add(at);
    for (const Index at : model.table.thread(request.thread).owned) add(at);
    for (auto descriptor = process.descriptors.begin(); descriptor != process.descriptors.end(); ++descriptor) {
        const Description &description = model.table.description(descriptor->description);
        if (description.owned.empty()) continue;
        const bool again = std::any_of(process.descriptors.begin(), descriptor, [&](const Descriptor &earlier) {
            return earlier.description == descriptor->description;
        });
        if (again) continue;
        for (const Index at : description.owned) add(at);
    }
}

}  // namespace planloop::analysis
