// Which file a lock event is about. Identity is (device, inode, generation), never the path: inode numbers are used
// again as soon as a file is unlinked, and one file has many paths. A lock is a family on a file; locks that can
// exclude each other share a domain (POSIX and OFD locks of a file do, flock stands alone).
//
// Grows with files and locks, not with events. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_LOCK_TABLE_H
#define PLANLOOP_ANALYSIS_LOCK_TABLE_H

#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "analysis/event.h"
#include "analysis/flat_map.h"
#include "analysis/quantile_sketch.h"
#include "analysis/queue_meter.h"

namespace planloop::analysis {

// A set of holds and waiters that may exclude each other.
struct Domain {
    std::vector<Index> owners;   // Ranges in the Model
    std::vector<Index> waiters;  // Requests; in place of a crowd, its leader
};

struct Lock {
    Index file = kNone;
    wire::Family family{};
    Index domain = kNone;
    std::string id;
    std::uint64_t acquisitions = 0, contended = 0, failed = 0;
    QuantileSketch wait, hold;
    std::int64_t waited_ns = 0;  // for somebody
    QueueMeter queue;
};

struct File {
    std::string path;  // first one seen
    std::string id;    // of locks that are no file
    std::uint64_t device = 0, inode = 0;
    std::uint32_t occurrence = 1;  // the n-th file seen under this inode number
    bool known = false;            // false: the descriptor named no file that could be told
    Index locks[wire::kFamilyCount];
    Index range_domain = kNone;  // shared by the families that lock byte ranges
};

class LockTable {
  public:
    explicit LockTable(const EventSource &source) : source_(source) {}

    Index file(std::uint32_t id) {  // by the source's file number; made at first use, like the lock
        const Index known = by_number_.find(id);
        return known != kNone ? known : learn_file(id);
    }
    Index lock(wire::Family family, Index file) {
        const Index known = find_lock(family, file);
        return known != kNone ? known : make_lock(family, file);
    }
    Index find_lock(wire::Family family, Index file) const {
        return files_[file].locks[static_cast<std::size_t>(family)];
    }

    Lock &operator[](Index lock) { return locks_[lock]; }
    const Lock &operator[](Index lock) const { return locks_[lock]; }
    std::size_t size() const { return locks_.size(); }
    const File &file_at(Index file) const { return files_[file]; }
    const std::string &path(Index lock) const { return files_[locks_[lock].file].path; }
    Domain &domain(Index domain) { return domains_[domain]; }
    const Domain &domain(Index domain) const { return domains_[domain]; }

  private:
    Index learn_file(std::uint32_t id);
    Index make_lock(wire::Family family, Index file);
    Index make_file(const FileInfo &info, std::uint32_t id);
    Index make_domain();

    const EventSource &source_;
    FlatMap by_number_;
    std::map<std::tuple<std::uint64_t, std::uint64_t, std::uint64_t>, Index> by_identity_;
    std::map<std::pair<std::uint64_t, std::uint64_t>, std::uint32_t> occurrences_;
    std::unordered_map<std::string, Index> by_name_;
    std::vector<File> files_;
    std::vector<Lock> locks_;
    std::vector<Domain> domains_;
};

}  // namespace planloop::analysis

#endif
