#include "analysis/crowds.h"

#include <algorithm>
#include <tuple>
#include <utility>

namespace planloop::analysis {

std::size_t Crowd::place_of(std::uint64_t number) const {
    const auto at = std::lower_bound(members.begin(), members.end(), number,
                                     [](const Member &member, std::uint64_t wanted) { return member.number < wanted; });
    return static_cast<std::size_t>(at - members.begin());
}

void Crowd::clear() {
    leader = latest = kNone;
    newest = 0;
    told_to_ns = blocked_ns = charged_ns = 0;
    first_piece = 0;
    merge_at = 256;
    members.clear();
    not_looked_at.clear();
    owners.clear();
    pieces.clear();
    charged.clear();
    places.clear();
}

bool Crowds::is_alike(const Request &one, const Request &other) const {
    return one.lock == other.lock && one.mode == other.mode && one.first == other.first && one.last == other.last;
}

Index Crowds::leader_for(const Request &request, bool &made) {
    made = false;
    // A call whose begin was lost waited before it is known.
    if (!request.blocking || request.bridge || request.call_ns != model_.now_ns) return kNone;
    const std::vector<Index> &waiters = model_.locks.domain(request.domain).waiters;
    if (waiters.empty()) return kNone;
    for (const Index at : model_.owned_by(request.family, request.owner))
        if (model_.ranges[at].domain == request.domain) return kNone;
    std::size_t alike = 0;
    for (const Index waiter : waiters) {
        const Request &other = model_.requests[waiter];
        if (!is_alike(other, request)) continue;
        if (other.leads != kNone) return waiter;
        ++alike;
    }
    if (alike < kLeastAlike) return kNone;
    made = true;
    const Index crowd = model_.crowds.make();
    const Index index = model_.requests.make();
    model_.crowds[crowd].leader = index;
    model_.crowds[crowd].told_to_ns = model_.now_ns;
    Request &leader = model_.requests[index];
    leader.leads = crowd;
    leader.lock = request.lock;
    leader.domain = request.domain;
    leader.family = request.family;
    leader.mode = request.mode;
    leader.first = request.first;
    leader.last = request.last;
    leader.since_ns = leader.call_ns = leader.charged_to = model_.now_ns;
    leader.blocking = leader.waiting = true;
    model_.add_waiter(index);
    return index;
}

bool Crowds::join(Index index, Index leader_index) {
    const Request &leader = model_.requests[leader_index];
    Crowd &crowd = model_.crowds[leader.leads];
    culprits_.before_change(leader_index);
    advance(leader.leads);
    Request &request = model_.requests[index];
    if (leader.stopped) {  // as a member, it is stopped too
        culprits_.look_at(request);
        if (request.bridge) {
            if (crowd.members.empty()) end(leader.leads);
            return false;
        }
    }
    request.crowd = leader.leads;
    request.number = ++crowd.newest;
    request.blocked_base_ns = crowd.blocked_ns;
    request.charged_base_ns = crowd.charged_ns;
    crowd.members.push_back({request.number, index});
    ++crowd.owners.at(request.owner, 0);
    if (!leader.stopped) crowd.not_looked_at.push_back(index);
    return true;
}

void Crowds::end(Index index) {
    const Index leader = model_.crowds[index].leader;
    model_.remove_waiter(leader);
    model_.requests.release(leader);
    model_.crowds.release(index);
}

void Crowds::remove(Index index) {
    Request &request = model_.requests[index];
    Crowd &crowd = model_.crowds[request.crowd];
    const bool is_first = crowd.members.front().number == request.number;
    const std::size_t place = is_first ? 0 : crowd.place_of(request.number);
    crowd.members.erase(place);
    if (--crowd.owners.at(request.owner, 1) == 0) crowd.owners.erase(request.owner);
    if (!request.looked) {
        const auto at = std::find(crowd.not_looked_at.begin(), crowd.not_looked_at.end(), index);
        if (at != crowd.not_looked_at.end()) crowd.not_looked_at.erase(at);
    }
    const Index crowd_index = std::exchange(request.crowd, kNone);
    if (crowd.members.empty()) return end(crowd_index);
    if (place != 0) return;
    const std::uint64_t oldest = crowd.members.front().number;
    while (crowd.first_piece < crowd.pieces.size() && crowd.pieces[crowd.first_piece].newest < oldest)
        ++crowd.first_piece;
}

void Crowds::part(Index index) {
    Request &request = model_.requests[index];
    const Crowd &crowd = model_.crowds[request.crowd];
    culprits_.before_change(crowd.leader);
    advance(request.crowd);
    const Request &leader = model_.requests[crowd.leader];
    request.blame.clear();
    tell(request, request.blame);
    request.blockers = leader.blockers;
    request.obstacles = leader.obstacles;
    request.stopped = leader.stopped;
    request.charged_to = model_.now_ns;
    culprits_.carry(request, crowd);
    remove(index);
    model_.add_waiter(index);
}

bool Crowds::part_all_owned_by(Index crowd, wire::Family family, Index owner) {
    std::vector<Index> found;
    for (const Crowd::Member &member : model_.crowds[crowd].members) {
        const Request &request = model_.requests[member.request];
        if (request.owner == owner && request.family == family) found.push_back(member.request);
    }
    for (const Index one : found) part(one);
    return !found.empty();
}

void Crowds::part_bridges() {
    std::vector<Index> &bridges = culprits_.bridges_in_crowds();
    for (std::size_t i = 0; i < bridges.size(); ++i)  // NOLINT(modernize-loop-convert): to part one may add others
        if (model_.requests[bridges[i]].crowd != kNone && model_.requests[bridges[i]].bridge) part(bridges[i]);
    bridges.clear();
}

void Crowds::part_all() {
    std::vector<Index> members;
    for (Index lock = 0; lock < model_.locks.size(); ++lock) {
        model_.for_waiters(model_.locks[lock].domain, [&](Index request) {
            if (model_.requests[request].crowd != kNone) members.push_back(request);
        });
        for (const Index member : members)
            if (model_.requests[member].crowd != kNone) part(member);
        members.clear();
    }
}

void Crowds::complete(Crowd &crowd) {
    Request &leader = model_.requests[crowd.leader];
    const std::int64_t ns = model_.now_ns - crowd.told_to_ns;
    crowd.told_to_ns = model_.now_ns;
    if (leader.blockers > 0) crowd.blocked_ns += ns;
    for (std::size_t i = 0; i < leader.blockers; ++i) {
        Blame &blame = leader.blame[i];
        blame.ns += model_.now_ns - blame.since_ns;
        blame.since_ns = model_.now_ns;
        if (blame.ns == 0) continue;
        add_piece(crowd, blame, 0);
        blame.ns = 0;
    }
}

void Crowds::add_piece(Crowd &crowd, const Blame &blame, std::int64_t until_ns) {
    if (crowd.members.empty()) return;
    if (crowd.pieces.size() > crowd.first_piece) {
        Crowd::Piece &last = crowd.pieces.back();
        if (last.newest == crowd.newest && last.pid == blame.pid && last.tid == blame.tid) {
            last.ns += blame.ns;
            last.entry = blame.entry;
            last.until_ns = until_ns;
            return;
        }
    }
    if (crowd.pieces.size() >= crowd.merge_at) {
        merge_pieces(crowd);
        crowd.merge_at = std::max<std::size_t>(256, 2 * crowd.pieces.size());
    }
    crowd.pieces.push_back({crowd.newest, blame.pid, blame.tid, blame.image, blame.entry, blame.ns, until_ns});
}

// Pieces between which no living member came tell the same to everybody: one for each thread is enough of them.
void Crowds::merge_pieces(Crowd &crowd) const {
    std::vector<Crowd::Piece> &pieces = crowd.pieces;
    pieces.erase(pieces.begin(), pieces.begin() + static_cast<std::ptrdiff_t>(crowd.first_piece));
    crowd.first_piece = 0;
    std::size_t member = 0;
    for (Crowd::Piece &piece : pieces) {  // both are in order
        while (member + 1 < crowd.members.size() && crowd.members[member + 1].number <= piece.newest) ++member;
        piece.newest = std::min(piece.newest, crowd.members[member].number);
    }
    std::stable_sort(pieces.begin(), pieces.end(), [](const Crowd::Piece &a, const Crowd::Piece &b) {
        return std::tie(a.newest, a.pid, a.tid) < std::tie(b.newest, b.pid, b.tid);
    });
    std::size_t kept = 0;
    for (std::size_t i = 1; i < pieces.size(); ++i) {
        Crowd::Piece &last = pieces[kept];
        if (pieces[i].newest != last.newest || pieces[i].pid != last.pid || pieces[i].tid != last.tid) {
            pieces[++kept] = pieces[i];
            continue;
        }
        last.ns += pieces[i].ns;
        last.entry = pieces[i].entry;
        last.until_ns = pieces[i].until_ns;
    }
    if (!pieces.empty()) pieces.resize(kept + 1);
}

void Crowds::tell(const Request &member, std::vector<Blame> &blame) const {
    const Crowd &crowd = model_.crowds[member.crowd];
    const Request &leader = model_.requests[crowd.leader];
    blame.assign(leader.blame.begin(), leader.blame.begin() + static_cast<std::ptrdiff_t>(leader.blockers));
    const auto first = std::lower_bound(
        crowd.pieces.begin() + static_cast<std::ptrdiff_t>(crowd.first_piece), crowd.pieces.end(), member.number,
        [](const Crowd::Piece &piece, std::uint64_t wanted) { return piece.newest < wanted; });
    FlatMap places;  // by thread
    const auto key = [](std::int32_t pid, std::int32_t tid) {
        return std::uint64_t{static_cast<std::uint32_t>(pid)} << 32 | static_cast<std::uint32_t>(tid);
    };
    for (std::size_t i = 0; i < blame.size(); ++i) {
        blame[i].charged_ns = 0;
        places.put(key(blame[i].pid, blame[i].tid), static_cast<Index>(i));
    }
    for (auto piece = first; piece != crowd.pieces.end(); ++piece) {
        Index place = places.find(key(piece->pid, piece->tid));
        if (place == kNone) {
            place = static_cast<Index>(blame.size());
            places.put(key(piece->pid, piece->tid), place);
            blame.push_back({piece->pid, piece->tid, piece->image, 0, 0, 0, piece->entry, 0});
        }
        Blame &whole = blame[place];
        whole.ns += piece->ns;
        if (whole.active > 0) continue;
        whole.entry = piece->entry;
        whole.until_ns = piece->until_ns;
    }
}

}  // namespace planloop::analysis
