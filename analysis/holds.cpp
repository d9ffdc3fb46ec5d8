#include "analysis/holds.h"

#include <algorithm>

namespace planloop::analysis {
namespace {

constexpr std::size_t kMostUndecided = 256;  // for one process; beyond, the oldest end counts as lost

}  // namespace

const char *reason_name(Reason reason) noexcept {
    switch (reason) {
        case Reason::unlock:
            return "unlock";
        case Reason::close:
            return "close";
        case Reason::exit:
            return "exit";
        case Reason::exec:
            return "exec";
        case Reason::killed:
            return "killed";
        case Reason::converted:
            return "converted";
        case Reason::lost:
        case Reason::undecided:
            break;
    }
    return "lost";
}

std::uint64_t Holds::key(Index domain, wire::Family family, Index owner) noexcept {
    return std::uint64_t{domain} << 36 | static_cast<std::uint64_t>(family) << 32 | owner;
}

Index Holds::find_among(const std::vector<Index> &owned, const Lock &about, Index owner) const {
    const std::size_t few = std::min(owned.size(), kFewOwned);
    for (std::size_t place = 0; place < few; ++place) {
        const Ranges &ranges = model_.ranges[owned[place]];
        if (ranges.domain == about.domain && ranges.family == about.family) return owned[place];
    }
    return owned.size() > few ? by_owner_.find(key(about.domain, about.family, owner)) : kNone;
}

std::vector<Index> &Holds::owned_by(wire::Family family, Index owner) {
    switch (owner_kind(family)) {
        case wire::Owner::description:
            return model_.table.description(owner).owned;
        case wire::Owner::process:
            return model_.table.process(owner).owned;
        case wire::Owner::thread:
            break;
    }
    return model_.table.thread(owner).owned;
}

Index Holds::ranges_of(Index lock, Index owner) {
    Index index = find_ranges(lock, owner);
    if (index != kNone) return index;
    const Lock &about = model_.locks[lock];
    index = model_.ranges.make();
    Ranges &ranges = model_.ranges[index];
    ranges.owner = owner;
    ranges.family = about.family;
    ranges.domain = about.domain;
    std::vector<Index> &in_domain = model_.locks.domain(about.domain).owners;
    ranges.place_in_domain = static_cast<Index>(in_domain.size());
    in_domain.push_back(index);
    std::vector<Index> &owned = owned_by(about.family, owner);
    ranges.place_in_owner = static_cast<Index>(owned.size());
    owned.push_back(index);
    // Who leaves the list only moves others towards its front, so what is not in the map is found there.
    if (owned.size() > kFewOwned) by_owner_.put(key(about.domain, about.family, owner), index);
    return index;
}

void Holds::release_ranges(Index index) {
    Ranges &ranges = model_.ranges[index];
    by_owner_.erase(key(ranges.domain, ranges.family, ranges.owner));
    std::vector<Index> &in_domain = model_.locks.domain(ranges.domain).owners;
    const Index moved = in_domain.back();
    in_domain[ranges.place_in_domain] = moved;
    model_.ranges[moved].place_in_domain = ranges.place_in_domain;
    in_domain.pop_back();
    std::vector<Index> &owned = owned_by(ranges.family, ranges.owner);
    const Index shifted = owned.back();
    owned[ranges.place_in_owner] = shifted;
    model_.ranges[shifted].place_in_owner = ranges.place_in_owner;
    owned.pop_back();
    model_.ranges.release(index);
}

void Holds::take(const Request &request) {
    const Index at = ranges_of(request.lock, request.owner);
    const Index index = model_.holds.make();
    Hold &hold = model_.holds[index];
    hold.lock = request.lock;
    hold.owner = request.owner;
    hold.mode = request.mode;
    hold.entry = request.entry;
    hold.start = request.start;
    hold.len = request.len;
    hold.since_ns = model_.now_ns;
    hold.image = request.image;
    hold.stream = request.stream;
    hold.pid = request.pid;
    hold.tid = request.tid;
    hold.caller = request.caller;
    hold.flags = request.flags;
    hold.site = request.site;
    hold.thread = request.thread;
    hold.fd = request.fd;
    hold.parts = 1;
    const RangeMap::Segment segment{request.first, request.last, index};
    if (owner_kind(request.family) == wire::Owner::thread)
        model_.ranges[at].map.push(segment);
    else
        model_.ranges[at].map.insert(segment);
    waits_.obstruct(model_.ranges[at], segment);
    observer_.acquired(index);
}

// Tells who ends before anything changes: observers look at the state in which it ended.
void Holds::cut(Index index, std::uint64_t first, std::uint64_t last, const HoldEnd &end) {
    Ranges &ranges = model_.ranges[index];
    if (const std::vector<RangeMap::Segment> &segments = ranges.map.segments(); segments.size() == 1) {
        const RangeMap::Segment whole = segments.front();  // by far the most: all there is goes
        if (first <= whole.first && whole.last <= last && model_.holds[whole.hold].parts == 1) {
            finish_hold(whole.hold, end);
            ranges.map.clear();
            waits_.clear_way(ranges, whole);
            model_.holds.release(whole.hold);
            release_ranges(index);
            return;
        }
    }
    ending_.clear();
    ranges.map.for_overlaps(first, last, [&](const RangeMap::Segment &segment) {
        if (segment.first < first || segment.last > last) return;
        const auto known =
            std::find_if(ending_.begin(), ending_.end(), [&](const Ending &one) { return one.hold == segment.hold; });
        if (known == ending_.end())
            ending_.push_back({segment.hold, 1});
        else
            ++known->parts;
    });
    for (const Ending &one : ending_)
        if (one.parts == model_.holds[one.hold].parts) finish_hold(one.hold, end);

    removed_.clear();
    kept_.clear();
    ranges.map.cut(first, last, removed_, kept_);
    for (const RangeMap::Segment &segment : removed_) waits_.clear_way(ranges, segment);
    for (const RangeMap::Segment &segment : kept_) {
        waits_.obstruct(ranges, segment);
        ++model_.holds[segment.hold].parts;
    }
    for (const RangeMap::Segment &segment : removed_)
        if (--model_.holds[segment.hold].parts == 0) model_.holds.release(segment.hold);
    if (ranges.map.empty()) release_ranges(index);
}

void Holds::pop(Index index, std::uint64_t entry, const HoldEnd &end) {
    Ranges &ranges = model_.ranges[index];
    const std::vector<RangeMap::Segment> &segments = ranges.map.segments();
    std::size_t at = segments.size() - 1;
    for (std::size_t i = 0; i < segments.size(); ++i)
        if (entry != 0 && model_.holds[segments[i].hold].entry == entry) at = i;
    const RangeMap::Segment segment = segments[at];
    finish_hold(segment.hold, end);
    waits_.clear_way(ranges, segment);
    ranges.map.remove_at(at);
    model_.holds.release(segment.hold);
    if (ranges.map.empty()) release_ranges(index);
}

void Holds::finish_hold(Index hold, const HoldEnd &end) {
    const Hold &ended = model_.holds[hold];
    model_.locks[ended.lock].hold.add(end.t_ns - ended.since_ns);
    observer_.hold_ended(hold, end);
}

bool Holds::give_back(Index lock, Index owner, std::uint64_t first, std::uint64_t last, const HoldEnd &end,
                      std::uint64_t entry) {
    const Index ranges = find_ranges(lock, owner);
    if (ranges == kNone) return false;
    if (owner_kind(model_.locks[lock].family) == wire::Owner::thread) {
        pop(ranges, entry, end);
        return true;
    }
    bool any = false;
    model_.ranges[ranges].map.for_overlaps(first, last, [&](const RangeMap::Segment &) { any = true; });
    if (any) cut(ranges, first, last, end);
    return any;
}

wire::Mode Holds::mode_of(Index lock, Index owner) const {
    const Index ranges = find_ranges(lock, owner);
    if (ranges == kNone) return wire::Mode::none;
    return model_.holds[model_.ranges[ranges].map.segments().front().hold].mode;
}

void Holds::drop_all(std::vector<Index> &owned, const HoldEnd &end) {
    while (!owned.empty()) {
        const Index ranges = owned.back();
        if (owner_kind(model_.ranges[ranges].family) == wire::Owner::thread)
            pop(ranges, 0, end);
        else
            cut(ranges, 0, kEndOfFile, end);
    }
}

void Holds::evict(const Request &request) {
    for (;;) {
        Index found = kNone;
        model_.for_conflicts(request, [&](Index hold) {
            if (found == kNone) found = hold;
        });
        if (found == kNone) return;
        evict_hold(found, find_ranges(model_.holds[found].lock, model_.holds[found].owner));
    }
}

void Holds::evict_hold(Index index, Index ranges) {
    const Hold &hold = model_.holds[index];
    HoldEnd end{model_.now_ns, Reason::undecided, EndCertainty::approximate, new_ticket(), hold.image, hold.stream,
                hold.pid,      hold.tid};
    bool somebody = false;
    model_.for_holders(hold, [&](Index holder) {
        Process &process = model_.table.process(holder);
        if (process.undecided.size() == kMostUndecided) {
            decide(process.undecided.front().ticket, Reason::lost, EndCertainty::approximate);
            process.undecided.erase(process.undecided.begin());
        }
        process.undecided.push_back({end.ticket, end.t_ns, hold.lock});
        somebody = true;
    });
    if (owner_kind(model_.locks[hold.lock].family) == wire::Owner::thread) {
        pop(ranges, hold.entry, end);
    } else {
        // All of it goes: whoever lost a part of a hold without a word has lost its descriptor or its life.
        for (bool more = true; more;) {
            more = false;
            RangeMap::Segment part{};
            for (const RangeMap::Segment &segment : model_.ranges[ranges].map.segments()) {
                if (segment.hold != index) continue;
                part = segment;
                more = model_.holds[index].parts > 1;
                break;
            }
            cut(ranges, part.first, part.last, end);
        }
    }
    if (!somebody) decide(end.ticket, Reason::lost, EndCertainty::approximate);
}

void Holds::decide_all(Process &process, const ProcessEnd *death) {
    for (const Undecided &one : process.undecided) {
        const bool explains = death != nullptr &&
                              (death->certainty == EndCertainty::approximate || death->t_ns - one.t_ns <= kLateDeathNs);
        decide(one.ticket, explains ? death->reason : Reason::lost,
               explains ? death->certainty : EndCertainty::approximate);
    }
    process.undecided.clear();
}

}  // namespace planloop::analysis
