// How a process that links lockcore comes to record: through the preloaded library if that is there, else by opening
// the session's spool itself and writing a `process` record, as that library would. Internal to the recorder.
//
// A forked child must not write into its parent's chunks, however it was forked: the mark that every recording thread
// compares lies in a page that the kernel zeroes in the child (madvise(2) MADV_WIPEONFORK), which then attaches anew.
#ifndef PLANLOOP_LOCKCORE_RECORDER_PROCESS_H
#define PLANLOOP_LOCKCORE_RECORDER_PROCESS_H

#include <cstdint>

#include "lockcore/wire/module_note.h"
#include "lockcore/wire/shim_link.h"

namespace planloop::recording {

struct ProcessWriter {
    const wire::ShimLink *shim = nullptr;
    wire::SpoolWriter *spool = nullptr;  // our own; nullptr: the library's, or nothing is recorded
    wire::WriterIdentity identity;
};

// The process's mark, given now if it has none; 0: there is no memory for one. Thread-safe.
std::uint32_t attach() noexcept;

// Introduces the process once more on the calling thread's own stream: see Call::introduce.
void repeat_introduction() noexcept;
// What this process has told of its address space since it attached.
wire::ToldModules &told_modules() noexcept;

// Of the process as attached last.
const ProcessWriter &process_writer() noexcept;

}  // namespace planloop::recording

#endif
