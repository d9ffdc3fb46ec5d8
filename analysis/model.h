// The state of the world at one moment of the merged stream: who holds what, who waits for what. Ownership changes
// it, event by event; timeline, statistics and detectors read it.
//
// Everything is named by an Index into a Pool; an Index is used again after its object is gone, so what must outlive an
// object keeps stream, image or entry numbers, which the source never gives twice.
#ifndef PLANLOOP_ANALYSIS_MODEL_H
#define PLANLOOP_ANALYSIS_MODEL_H

#include <cstdint>
#include <vector>

#include "analysis/crowd.h"
#include "analysis/lock_table.h"
#include "analysis/process_table.h"
#include "analysis/range_map.h"

namespace planloop::analysis {

// One successful lock call, for as long as a part of what it locked is held.
struct Hold {
    Index lock = kNone;
    Index owner = kNone;  // Description, Process or Thread, as the family says
    wire::Mode mode{};
    std::uint8_t flags = 0;  // wire::Flags of the request
    std::uint64_t entry = 0;
    std::uint64_t start = 0, len = 0;  // as asked for
    std::int64_t since_ns = 0;
    std::uint32_t image = 0, stream = 0;  // of who took it
    std::int32_t pid = 0, tid = 0;
    std::uint32_t parts = 0;
    std::uint64_t caller = 0;
    std::uint32_t site = 0;  // of the call that took it
    std::int64_t fd = -1;    // it was taken through
    Index thread = kNone;    // that took it, while its stream is still `stream`
    Index culprit = kNone;   // in Culprits; kNone: not known yet
    bool listed = false;     // in the report

    void clear() { *this = Hold{}; }
};

// What one owner holds in one domain through one family.
struct Ranges {
    Index owner = kNone;
    wire::Family family{};
    Index domain = kNone;
    Index place_in_domain = 0, place_in_owner = 0;
    RangeMap map;  // segments' `hold` is a Hold

    void clear() { map.clear(); }
};

// Someone who stood in the way of a request.
struct Blame {
    std::int32_t pid = 0, tid = 0;
    std::uint32_t image = 0;
    std::uint32_t active = 0;  // held segments that stand in the way now
    std::int64_t since_ns = 0;
    std::int64_t ns = 0;
    std::uint64_t entry = 0;      // of the hold that stood in the way last
    std::int64_t until_ns = 0;    // when it ceased to; 0: it never did
    Index hold = kNone;           // active: one of its holds that stand in the way
    Index culprit = kNone;        // who `charged_ns` is charged to
    std::int64_t charged_ns = 0;  // not yet among the request's charges
};

// What a request has charged to somebody so far (culprits.h).
struct Charge {
    Index culprit = kNone;
    std::int64_t ns = 0;
    std::int64_t kept_ns = 0;  // of it, what stays if a series of tries is not gone on with
    bool counted = false;      // the culprit counts this wait already (Request::carried_ns)
};

// An open lock call, or a series of failed tries of one thread that may go on (`parked` between two of them).
struct Request {
    Index lock = kNone, domain = kNone, owner = kNone, process = kNone, thread = kNone;
    Index outer = kNone;  // the call that this one interrupted (signal handler)
    wire::Family family{};
    wire::Mode mode{};
    bool blocking = false, parked = false, waiting = false;  // waiting: in its domain's list
    std::uint8_t flags = 0;
    std::uint64_t entry = 0;
    std::uint64_t first = 0, last = 0;
    std::uint64_t start = 0, len = 0;  // as asked for
    std::int64_t since_ns = 0;         // of the first try
    std::int64_t call_ns = 0;          // of the present call
    std::int64_t tried_ns = 0;         // end of the last failed try
    std::uint32_t tries = 1;
    std::uint32_t image = 0, stream = 0;
    std::int32_t pid = 0, tid = 0;
    std::int64_t fd = -1;
    std::uint32_t obstacles = 0;  // held segments that stand in the way now
    Index place_in_domain = 0;
    std::uint64_t ticket = 0;  // of the hold that this call, a conversion, dropped at its begin; 0: none
    std::uint64_t caller = 0;
    std::uint32_t site = 0;
    std::vector<Blame> blame;   // those that are active come first
    std::size_t blockers = 0;   // how many are
    std::size_t merge_at = 32;  // length at which entries of one thread are merged again
    bool contended = false;     // it is over, and somebody stood in its way

    // Of a member of a crowd (crowd.h); what stands in its way its leader knows.
    Index crowd = kNone;
    std::uint64_t number = 0;  // in the crowd
    std::int64_t blocked_base_ns = 0, charged_base_ns = 0;
    Index leads = kNone;          // a leader's crowd
    std::int64_t carried_ns = 0;  // charged, and among the sums, when it left its crowd
    Index carried_to = kNone;     // the last culprit of these

    // Culprits' own (culprits.h).
    bool stopped = false;       // its thread cannot go on: what is charged to that thread is passed on
    bool bridge = false;        // somebody may wait for its thread
    bool looked = false;        // it stopped before; counted in the lock's queue
    std::uint32_t on_path = 0;  // its place in the chain that is being followed, from 1
    enum class Ends : std::uint8_t { at_culprit, at_first, in_branches };
    Ends ends{};                   // where its chain does, found out in ends_epoch; at_first: with who is in its way
    Index ends_at = kNone;         // hold
    std::uint32_t ends_after = 0;  // so many requests, from this one on, or more than Culprits::kMostSteps
    std::uint32_t ends_epoch = 0;
    std::int64_t charged_to = 0;               // time up to which it was charged
    std::int64_t gap_ns = 0, kept_gap_ns = 0;  // nobody stood in its way
    std::vector<Charge> charges;
    std::size_t compact_at = 32;

    void clear() {
        std::vector<Blame> keep = std::move(blame);
        std::vector<Charge> keep_charges = std::move(charges);
        keep.clear();
        keep_charges.clear();
        *this = Request{};
        blame = std::move(keep);
        charges = std::move(keep_charges);
    }
};

constexpr wire::Owner owner_kind(wire::Family family) noexcept {
    return wire::kFamilies[static_cast<std::size_t>(family)].owner;
}

constexpr bool exclude(wire::Mode one, wire::Mode other) noexcept {
    return one == wire::Mode::exclusive || other == wire::Mode::exclusive;
}

struct Model {
    explicit Model(const EventSource &from) : source(from), locks(from), table(from) {}

    const EventSource &source;
    LockTable locks;
    ProcessTable table;
    Pool<Hold> holds;
    Pool<Ranges> ranges;
    Pool<Request> requests;
    Pool<Crowd> crowds;
    std::int64_t now_ns = 0;                          // time of the event being applied
    std::int64_t long_wait_ns = 0, long_hold_ns = 0;  // see AnalysisOptions
    DeadlockListener *listener = nullptr;             // see AnalysisOptions
    bool tells_blame = false;  // somebody looks at Request::blame of every call; else of waits that failed or are long

    // The request whose obstacles, blame and `stopped` are also this one's.
    const Request &as_waiter(const Request &request) const {
        return request.crowd == kNone ? request : requests[crowds[request.crowd].leader];
    }
    // Calls visit(request index) for each call that waits in the domain, also those in crowds.
    template <class Visit>
    void for_waiters(Index domain, Visit visit) const {
        for (const Index waiter : locks.domain(domain).waiters) {
            if (requests[waiter].leads == kNone) {
                visit(waiter);
                continue;
            }
            for (const Crowd::Member &member : crowds[requests[waiter].leads].members) visit(member.request);
        }
    }

    void add_waiter(Index index) {
        Request &request = requests[index];
        std::vector<Index> &waiters = locks.domain(request.domain).waiters;
        request.place_in_domain = static_cast<Index>(waiters.size());
        waiters.push_back(index);
    }
    // The last waiter takes its place.
    void remove_waiter(Index index) {
        const Request &request = requests[index];
        std::vector<Index> &waiters = locks.domain(request.domain).waiters;
        const Index last = waiters.back();
        waiters[request.place_in_domain] = last;
        requests[last].place_in_domain = request.place_in_domain;
        waiters.pop_back();
    }

    const std::vector<Index> &owned_by(wire::Family family, Index owner) const {
        switch (owner_kind(family)) {
            case wire::Owner::description:
                return table.description(owner).owned;
            case wire::Owner::process:
                return table.process(owner).owned;
            case wire::Owner::thread:
                break;
        }
        return table.thread(owner).owned;
    }

    // Calls visit(segment) for what the request's owner, which must be known, has of the same lock already.
    template <class Visit>
    void for_own(const Request &request, Visit visit) const {
        for (const Index at : owned_by(request.family, request.owner)) {
            const Ranges &own = ranges[at];
            if (own.domain == request.domain && own.family == request.family)
                own.map.for_overlaps(request.first, request.last, visit);
        }
    }

    // Calls visit(hold index) for each held segment in the way of a lock of `mode` on [first, last] by `owner`.
    template <class Visit>
    void for_conflicts(Index domain, wire::Family family, Index owner, wire::Mode mode, std::uint64_t first,
                       std::uint64_t last, Visit visit) const {
        for (const Index at : locks.domain(domain).owners) {
            const Ranges &other = ranges[at];
            if (other.owner == owner && other.family == family) continue;
            other.map.for_overlaps(first, last, [&](const RangeMap::Segment &segment) {
                if (exclude(mode, holds[segment.hold].mode)) visit(segment.hold);
            });
        }
    }
    template <class Visit>
    void for_conflicts(const Request &request, Visit visit) const {
        for_conflicts(request.domain, request.family, request.owner, request.mode, request.first, request.last, visit);
    }

    // Calls visit(process index) for each process that has the hold and could end it.
    template <class Visit>
    void for_holders(const Hold &hold, Visit visit) const {
        switch (owner_kind(locks[hold.lock].family)) {
            case wire::Owner::description:
                for (const Description::Sharer &sharer : table.description(hold.owner).sharers) visit(sharer.process);
                break;
            case wire::Owner::process:
                visit(hold.owner);
                break;
            case wire::Owner::thread:
                visit(table.thread(hold.owner).process);
                break;
        }
    }

    // The open call in which a thread waits for somebody now, or kNone.
    Index blocked_request(Index thread) const {
        const Index request = table.thread(thread).request;
        if (request == kNone || !requests[request].blocking || as_waiter(requests[request]).obstacles == 0)
            return kNone;
        return request;
    }
};

}  // namespace planloop::analysis

#endif
