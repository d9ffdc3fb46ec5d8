#include "analysis/filter.h"

#include <algorithm>
#include <map>
#include <utility>

#include "analysis/render/names.h"
#include "analysis/report.h"

namespace planloop::analysis {
namespace {

constexpr std::int64_t kDayNs = 86'400'000'000'000;

std::int64_t settled(const Moment &moment, std::int64_t from_utc_ns) {
    if (!moment.of_day) return moment.ns;
    const std::int64_t that_day = from_utc_ns - from_utc_ns % kDayNs + moment.ns;
    return that_day < from_utc_ns - kDayNs / 2 ? that_day + kDayNs : that_day;
}

template <class Values, class Value>
bool among(const Values &values, const Value &value) {
    return values.empty() || std::find(values.begin(), values.end(), value) != values.end();
}

template <class List, class Told>
void keep(List &list, Told told) {
    list.erase(std::remove_if(list.begin(), list.end(), [&](const auto &one) { return !told(one); }), list.end());
}

// Of a lock that has no row nothing more is known than its id.
class LockRows {
  public:
    explicit LockRows(const Report &report) {
        for (const LockRow &row : report.locks) rows_.emplace(row.id, &row);
    }
    template <class Told>
    bool any(const std::set<std::string, std::less<>> &ids, Told told) const {
        return std::any_of(ids.begin(), ids.end(), [&](const std::string &id) {
            const auto row = rows_.find(id);
            if (row != rows_.end()) return told(id, row->second->path, family_name(row->second->family));
            return told(id, std::string_view(), std::string_view(id).substr(0, id.find(':')));
        });
    }

  private:
    std::map<std::string_view, const LockRow *> rows_;
};

std::set<std::string, std::less<>> locks_of(const Finding &finding) {
    std::set<std::string, std::less<>> ids(finding.locks.begin(), finding.locks.end());
    for (const Participant &one : finding.participants) {
        ids.insert(one.holds.begin(), one.holds.end());
        ids.insert(one.parent_holds.begin(), one.parent_holds.end());
        if (!one.waits_for.empty()) ids.insert(one.waits_for);
    }
    return ids;
}

}  // namespace

void Shown::begin_at(std::int64_t from_utc_ns) {
    if (filter_.since) since_ns_ = settled(*filter_.since, from_utc_ns);
    if (filter_.until) until_ns_ = settled(*filter_.until, from_utc_ns) + filter_.until->precision - 1;
}

bool Shown::lock_told(std::string_view id, std::string_view path, std::string_view family) const {
    return among(filter_.families, family) &&
           (filter_.locks.empty() || among(filter_.locks, id) || (!path.empty() && among(filter_.locks, path)));
}

bool Shown::process_told(std::int32_t pid, std::string_view process, std::string_view trace_id) const {
    if (!among(filter_.pids, pid) || !among(filter_.processes, process)) return false;
    return filter_.traces.empty() ||
           std::any_of(filter_.traces.begin(), filter_.traces.end(),
                       [&](const std::string &begin) { return trace_id.substr(0, begin.size()) == begin; });
}

bool Shown::entry(const TimelineEntry &entry) {
    return call(entry, entry.utc_ns, entry.utc_ns);
}

bool Shown::call(const TimelineEntry &entry, std::int64_t from_ns, std::int64_t to_ns) {
    if (!in_time(from_ns, to_ns) || !process_told(entry.pid, entry.process, entry.trace_id) ||
        !lock_told(entry.lock, entry.path, family_name(entry.family)))
        return false;
    locks_.insert(entry.lock);
    return true;
}

void Shown::narrow(Report &report) const {
    if (filter_.empty()) return;
    const std::int64_t begin = report.from_utc_ns;
    const LockRows rows(report);
    const auto lock = [&](std::string_view id, std::string_view path, std::string_view family) {
        return lock_told(id, path, family);
    };
    const auto lock_of = [&](const auto &one) { return rows.any({one.lock}, lock); };
    keep(report.held, [&](const HeldLock &held) {
        const bool somebody = process_told(held.pid, held.process, held.trace_id) ||
                              std::any_of(held.holders.begin(), held.holders.end(), [&](const Holder &holder) {
                                  return process_told(holder.pid, holder.process, {});
                              });
        return somebody && lock_of(held) && in_time(begin + held.since_ns, report.to_utc_ns);
    });
    keep(report.waiting, [&](const WaitingRequest &request) {
        return process_told(request.pid, request.process, request.trace_id) && lock_of(request) &&
               in_time(begin + request.since_ns, report.to_utc_ns);
    });
    const std::size_t all = report.findings.size();
    keep(report.findings, [&](const Finding &finding) {
        const std::int64_t to_ns = finding.to_ns < 0 ? report.to_utc_ns : begin + finding.to_ns;
        if (!among(filter_.findings, finding.kind) || !in_time(begin + finding.from_ns, to_ns)) return false;
        const auto ids = locks_of(finding);
        if (!ids.empty() && !rows.any(ids, lock)) return false;
        const bool nobody = finding.participants.empty() && finding.also_held_by.empty();
        return nobody ||
               std::any_of(finding.participants.begin(), finding.participants.end(),
                           [&](const Participant &one) { return process_told(one.pid, one.process, one.trace_id); }) ||
               std::any_of(finding.also_held_by.begin(), finding.also_held_by.end(),
                           [&](const Holder &holder) { return process_told(holder.pid, holder.process, {}); });
    });
    std::set<std::string, std::less<>> told = locks_;
    for (const HeldLock &held : report.held) told.insert(held.lock);
    for (const WaitingRequest &request : report.waiting) told.insert(request.lock);
    for (const Finding &finding : report.findings) told.merge(locks_of(finding));
    keep(report.locks, [&](const LockRow &row) { return told.count(row.id) > 0; });
    keep(report.order,
         [&](const LockOrder &order) { return told.count(order.held) > 0 && told.count(order.wanted) > 0; });
    report.shown = filter_.words;
    report.findings_not_shown = all - report.findings.size();
}

}  // namespace planloop::analysis
