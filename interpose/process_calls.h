// What the hooks on process calls share with those on syscall().
#ifndef PLANLOOP_INTERPOSE_PROCESS_CALLS_H
#define PLANLOOP_INTERPOSE_PROCESS_CALLS_H

#include "interpose/attach.h"

namespace planloop::shim {

// Before a child is made: maps the spool's header, so that parent and child see the mask of inherited locks, and tracks
// what is shared already. True when the child will share descriptors that matter.
bool prepare_fork() noexcept;

// After a child was made: it may share descriptors on which no lock has been taken yet.
void note_child(std::int32_t child) noexcept;

// Before the process ends by itself; recorded once.
void note_exit(wire::ExitCause cause, int status) noexcept;

// Before and after an exec. begin() records which tracked descriptors will be closed by it and that it is about to
// happen; failed() takes that back. `environment` is what the new image shall get: the program's, or a copy on the
// stack that tells it which locks it holds.
class ExecRecord {
  public:
    void begin() noexcept;
    void failed() noexcept;

  private:
    static constexpr int kMostNotes = 64;
    wire::Record *notes_[kMostNotes];
    int count_ = 0;
};

}  // namespace planloop::shim

#endif
