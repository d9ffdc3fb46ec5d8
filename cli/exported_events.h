// Which lock events of one spool stand in planloop.jsonl already, so that a second `dev run` into the session writes
// none again. Four bits for each slot of the spool, one for each kind of event that the lock call in it can lead to:
// a tenth of a per cent of the spool's size, exact whatever the order in which events become known, and whatever
// later readings of the clock say about their times. Kept in a file beside planloop.jsonl.
//
// Bits are stored after the lines that they stand for: a supervisor that is killed in between repeats its last lines.
//
// Threads: externally synchronised; one process at a time (the spool's first supervisor).
#ifndef PLANLOOP_CLI_EXPORTED_EVENTS_H
#define PLANLOOP_CLI_EXPORTED_EVENTS_H

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "analysis/event.h"
#include "lockcore/result.h"

namespace planloop::cli {

class ExportedEvents {
  public:
    static Result<ExportedEvents> load(const std::string &path);

    // True the first time that it is asked for this event. `slot` of the lock call's record in the spool.
    bool take(std::uint64_t slot, analysis::EventKind kind);
    // Stores what was taken since.
    Result<void> store();

  private:
    explicit ExportedEvents(std::string path) : path_(std::move(path)) {}

    std::string path_;
    std::vector<std::uint8_t> bits_;  // two slots a byte
    std::set<std::size_t> changed_;   // pages of bits_
};

}  // namespace planloop::cli

#endif
