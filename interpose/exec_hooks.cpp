// exec and its kin, posix_spawn, system, popen: a program that replaces itself or starts another one. libc's execv,
// execl, execvp … do not reach a hook on execve, so each has its own here.
#include <fcntl.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstring>

#include "interpose/descriptor_calls.h"
#include "interpose/exec_environment.h"
#include "interpose/inherited.h"
#include "interpose/proc_files.h"
#include "interpose/process_calls.h"
#include "interpose/real.h"
#include "interpose/settings.h"
#include "interpose/shares.h"
#include "lockcore/wire/executable.h"

namespace planloop::shim {

namespace {

// In a vfork child, which is no process of ours to speak of: it writes into the stream of the parent's thread, which
// sleeps until the child is gone, and whose memory it is. Elsewhere it changes nothing.
class SpeakForParent {
  public:
    explicit SpeakForParent(Thread &me) noexcept : me_(me), vfork_parent_(me.vfork_parent) {
        if (in_vfork_child(me)) me.speaks_for = vfork_parent_;
        me.vfork_parent = 0;
    }
    ~SpeakForParent() noexcept {
        me_.speaks_for = 0;
        me_.vfork_parent = vfork_parent_;
    }
    SpeakForParent(const SpeakForParent &) = delete;
    SpeakForParent &operator=(const SpeakForParent &) = delete;

  private:
    Thread &me_;
    std::int32_t vfork_parent_;
};

// The parent never learns the pid before it goes on, and what the child becomes may record by then. A shell tries an
// exec for each folder of $PATH.
void tell_of_vforked(Thread &me) noexcept {
    const auto pid = static_cast<std::int32_t>(wire::raw_syscall(SYS_getpid));
    if (me.vfork_told == pid || process.own_pid.load(std::memory_order_relaxed) != 0) return;
    me.vfork_told = pid;
    const SpeakForParent parent(me);
    ChildRecord().finish(pid);
}

}  // namespace

void ExecRecord::begin() noexcept {
    Thread &me = thread;
    if (settings.enabled && in_vfork_child(me)) return tell_of_vforked(me);
    if (!prepare_fork() || !enter(me)) return;
    begun_ = true;
    ++me.stream.unfinished;
    if (tracked_mask.load(std::memory_order_relaxed) != 0) {
        for_each_open_descriptor([&](int fd) {
            if (!may_concern_locks(fd) || (wire::raw_syscall(SYS_fcntl, fd, F_GETFD) & FD_CLOEXEC) == 0) return;
            const Descriptor *descriptor = find_descriptor(fd);
            Identity identity;
            if (descriptor != nullptr) {
                identity = Identity::unpack(descriptor->ids.load(std::memory_order_relaxed));
                unshare(fd, *descriptor);
            } else {
                identity.file = posix_locked_file(fd);
            }
            if (identity.packed() == 0) return;
            wire::Record *note = write_note(me, {.kind = wire::RecordKind::close,
                                                 .fd = fd,
                                                 .file = identity.file,
                                                 .description = identity.description,
                                                 .a = static_cast<std::uint64_t>(wire::CloseCause::exec)});
            if (note != nullptr && count_ < kMostNotes) closes_[count_++] = note;
        });
    }
    exec_ = write_note(me, {.kind = wire::RecordKind::exec});
}

void ExecRecord::failed() noexcept {
    if (begun_) --thread.stream.unfinished;
    if (exec_ != nullptr) wire::StreamWriter::conclude(exec_, wire::State::annulled);
    while (count_ > 0) {
        wire::Record *closed = closes_[--count_];
        wire::StreamWriter::conclude(closed, wire::State::annulled);
        const Descriptor *descriptor = find_descriptor(closed->fd);
        if (descriptor != nullptr && descriptor->provenance.load(std::memory_order_relaxed) >= Descriptor::named) {
            share_copy(closed->fd);
        }
    }
}

namespace {

// A program in which the shim cannot be is named in the trace, since its locks will be missing there.
void note_if_untraceable(const char *path) noexcept {
    if (!settings.enabled || path == nullptr) return;
    // A path that leads nowhere needs no look, and one that is no string is the kernel's to refuse: it is asked first.
    constexpr int kExists = 0;  // F_OK
    if (wire::raw_syscall(SYS_faccessat, AT_FDCWD, path, kExists) != 0) return;
    wire::PreloadObstacle obstacle = wire::obstacle_to_preload(path);
    if (!obstacle.found && process.out_of_reach.load(std::memory_order_relaxed)) {
        obstacle.found = true;
        obstacle.cause = wire::NotTracedCause::other_user;
        Text(obstacle.path, sizeof(obstacle.path)) << path;
    }
    if (!obstacle.found) return;
    Thread &me = thread;
    const SpeakForParent parent(me);
    if (open_spool() && enter(me)) {
        const wire::TextPiece text{obstacle.path, std::strlen(obstacle.path) + 1};
        if (wire::Record *record = me.stream.claim_with_text(process.spool, me.who(process), &text, 1)) {
            record->kind = wire::RecordKind::not_traced;
            record->begin = process.spool.ticks();
            record->a = static_cast<std::uint64_t>(wire::raw_syscall(SYS_getpid));
            record->b = static_cast<std::uint64_t>(obstacle.cause);
            me.stream.publish(record, wire::State::complete);
        }
    }
}

// As execvp(3) searches: the first file of that name in $PATH that may be run.
void note_if_untraceable_in_path(const char *file) noexcept {
    if (!settings.enabled || file == nullptr || std::strchr(file, '/') != nullptr) return note_if_untraceable(file);
    constexpr char kName[] = "PATH=";
    const char *folders = "/bin:/usr/bin";
    for (char **entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, kName, sizeof(kName) - 1) == 0) folders = *entry + sizeof(kName) - 1;
    }
    while (*folders != '\0') {
        const std::size_t length = std::strcspn(folders, ":");
        char path[512];
        if (length + std::strlen(file) + 2 < sizeof(path)) {
            std::memcpy(path, folders, length);
            path[length] = '/';
            std::strcpy(path + length + 1, file);
            constexpr int kMayRun = 1;  // X_OK
            if (wire::raw_syscall(SYS_faccessat, AT_FDCWD, path, kMayRun) == 0) return note_if_untraceable(path);
        }
        folders += length + (folders[length] == ':' ? 1 : 0);
    }
}

// posix_spawn and posix_spawnp. No part of the program changes its descriptors before the child's share is recorded.
template <class Call>
int record_spawn(pid_t *pid, const posix_spawn_file_actions_t *actions, char *const *environment, Call call) {
    const bool concerns_locks = prepare_child();
    const ChildRecord record;
    pid_t child = 0;
    const Handover handover = actions == nullptr ? Handover::as_they_are : Handover::by_actions;
    const int result =
        with_environment(environment, handover, [&](char *const *entries) { return call(&child, entries); });
    if (result != 0) return result;
    record.finish(child);
    if (concerns_locks) note_spawned(thread, child);
    if (pid != nullptr) *pid = child;
    return result;
}

// The arguments of an execl, which a null pointer ends, as an array on the caller's frame.
#define PLANLOOP_COLLECT(first)                      \
    std::size_t count = 1;                           \
    va_list list;                                    \
    va_start(list, first);                           \
    while (va_arg(list, char *) != nullptr) ++count; \
    va_end(list);                                    \
    char *arguments[count + 1];                      \
    arguments[0] = const_cast<char *>(first);        \
    va_start(list, first);                           \
    for (std::size_t i = 1; i <= count; ++i) arguments[i] = va_arg(list, char *);

// While a child is made with the program's own environment: what it inherits stands there for that time. One thread at
// a time, and not on its stack: the program's environment must never point at memory that is gone, even when the thread
// is cancelled inside system(3). Another thread's child finds out by the share table.
std::atomic<bool> variable_in_use;
char shared_variable[kSessionBytes];

class SessionVariableSet {
  public:
    SessionVariableSet() noexcept {
        if (!prepare_child()) return;
        if (variable_in_use.exchange(true, std::memory_order_acquire)) {
            publish_all();
            return;
        }
        char **entry = find_entry(environ, kSessionName);
        Text text(shared_variable, sizeof(shared_variable));
        if (entry != nullptr && write_session(thread, text, Handover::as_they_are)) {
            before_ = *entry;
            *entry = shared_variable;
        } else {
            variable_in_use.store(false, std::memory_order_release);
        }
    }
    ~SessionVariableSet() noexcept {
        if (before_ == nullptr) return;
        // The program may have changed its environment meanwhile.
        if (char **now = find_entry(environ, kSessionName); now != nullptr && *now == shared_variable) *now = before_;
        variable_in_use.store(false, std::memory_order_release);
    }
    SessionVariableSet(const SessionVariableSet &) = delete;
    SessionVariableSet &operator=(const SessionVariableSet &) = delete;

  private:
    char *before_ = nullptr;
};

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;
namespace wire = planloop::wire;

extern "C" int planloop_execve(const char *path, char *const *argv, char *const *envp) PLANLOOP_EXPORT(execve);
int planloop_execve(const char *path, char *const *argv, char *const *envp) {
    note_if_untraceable(path);
    return record_exec(envp, [=](char *const *environment) { return real<Symbol::execve>()(path, argv, environment); });
}

extern "C" int planloop_execv(const char *path, char *const *argv) PLANLOOP_EXPORT(execv);
int planloop_execv(const char *path, char *const *argv) {
    return planloop_execve(path, argv, environ);
}

extern "C" int planloop_execvpe(const char *file, char *const *argv, char *const *envp) PLANLOOP_EXPORT(execvpe);
int planloop_execvpe(const char *file, char *const *argv, char *const *envp) {
    note_if_untraceable_in_path(file);
    return record_exec(envp,
                       [=](char *const *environment) { return real<Symbol::execvpe>()(file, argv, environment); });
}

extern "C" int planloop_execvp(const char *file, char *const *argv) PLANLOOP_EXPORT(execvp);
int planloop_execvp(const char *file, char *const *argv) {
    return planloop_execvpe(file, argv, environ);
}

extern "C" int planloop_fexecve(int fd, char *const *argv, char *const *envp) PLANLOOP_EXPORT(fexecve);
int planloop_fexecve(int fd, char *const *argv, char *const *envp) {
    return record_exec(envp, [=](char *const *environment) { return real<Symbol::fexecve>()(fd, argv, environment); });
}

extern "C" int planloop_execveat(int folder, const char *path, char *const *argv, char *const *envp, int flags)
    PLANLOOP_EXPORT(execveat);
int planloop_execveat(int folder, const char *path, char *const *argv, char *const *envp, int flags) {
    return record_exec(envp, [=](char *const *environment) {
        return real<Symbol::execveat>()(folder, path, argv, environment, flags);
    });
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wvla"  // exec must not allocate, and only the caller knows how many there are

extern "C" int planloop_execl(const char *path, const char *first, ...) PLANLOOP_EXPORT(execl);
int planloop_execl(const char *path, const char *first, ...) {
    PLANLOOP_COLLECT(first)
    va_end(list);
    return planloop_execve(path, arguments, environ);
}

extern "C" int planloop_execlp(const char *file, const char *first, ...) PLANLOOP_EXPORT(execlp);
int planloop_execlp(const char *file, const char *first, ...) {
    PLANLOOP_COLLECT(first)
    va_end(list);
    return planloop_execvpe(file, arguments, environ);
}

extern "C" int planloop_execle(const char *path, const char *first, ...) PLANLOOP_EXPORT(execle);
int planloop_execle(const char *path, const char *first, ...) {
    PLANLOOP_COLLECT(first)
    char *const *envp = va_arg(list, char *const *);
    va_end(list);
    return planloop_execve(path, arguments, envp);
}

#pragma GCC diagnostic pop

extern "C" int planloop_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                                    const posix_spawnattr_t *attributes, char *const *argv, char *const *envp)
    PLANLOOP_EXPORT(posix_spawn);
int planloop_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                         const posix_spawnattr_t *attributes, char *const *argv, char *const *envp) {
    note_if_untraceable(path);
    return record_spawn(pid, actions, envp, [=](pid_t *child, char *const *environment) {
        return real<Symbol::posix_spawn>()(child, path, actions, attributes, argv, environment);
    });
}

extern "C" int planloop_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                                     const posix_spawnattr_t *attributes, char *const *argv, char *const *envp)
    PLANLOOP_EXPORT(posix_spawnp);
int planloop_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
                          const posix_spawnattr_t *attributes, char *const *argv, char *const *envp) {
    note_if_untraceable_in_path(file);
    return record_spawn(pid, actions, envp, [=](pid_t *child, char *const *environment) {
        return real<Symbol::posix_spawnp>()(child, file, actions, attributes, argv, environment);
    });
}

namespace {

// system(3) and pclose(3) tell a status.
int child_not_known(int result) {
    return result < 0 ? -1 : 0;
}

}  // namespace

extern "C" int planloop_system(const char *command) PLANLOOP_EXPORT(system);
int planloop_system(const char *command) {
    const SessionVariableSet set;
    return record_child_wait(
        -1, [=] { return real<Symbol::system>()(command); }, child_not_known);
}

extern "C" FILE *planloop_popen(const char *command, const char *mode) PLANLOOP_EXPORT(popen);
FILE *planloop_popen(const char *command, const char *mode) {
    const SessionVariableSet set;
    return real<Symbol::popen>()(command, mode);
}

extern "C" int planloop_pclose(FILE *stream) PLANLOOP_EXPORT(pclose);
int planloop_pclose(FILE *stream) {
    if (stream != nullptr) {
        const int fd = fileno(stream);
        if (fd >= 0 && may_concern_locks(fd)) let_go(fd, wire::CloseCause::stream);
    }
    return record_child_wait(
        -1, [=] { return real<Symbol::pclose>()(stream); }, child_not_known);
}
