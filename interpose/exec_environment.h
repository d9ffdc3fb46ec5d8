// The environment that a new program gets, when the program's own would not do: it lacks us, because the program made
// it itself (`env -i`, Python's subprocess with env=), or the new image will hold locks that it has to know of. What is
// added is taken off again by the new image's constructor (settings.h); at most LD_PRELOAD is left to be seen.
//
// Async-signal-safe and without allocation: this runs in vfork children and between fork and exec.
#ifndef PLANLOOP_INTERPOSE_EXEC_ENVIRONMENT_H
#define PLANLOOP_INTERPOSE_EXEC_ENVIRONMENT_H

#include <sys/mman.h>

#include <cstddef>
#include <cstring>

#include "interpose/inherited.h"
#include "interpose/proc_files.h"
#include "interpose/process_calls.h"
#include "interpose/settings.h"

namespace planloop::shim {

inline constexpr char kSessionName[] = "PLANLOOP_SESSION=";
inline constexpr char kPreloadName[] = "LD_PRELOAD=";
inline constexpr std::size_t kSessionBytes = 1792;  // with what is inherited
inline constexpr std::size_t kCarriedBytes = 5120;  // with the home too
inline constexpr std::size_t kPreloadBytes = 2048;

template <std::size_t size>
char **find_entry(char *const *environment, const char (&name)[size]) noexcept {
    for (char *const *entry = environment; entry != nullptr && *entry != nullptr; ++entry) {
        if (std::strncmp(*entry, name, size - 1) == 0) return const_cast<char **>(entry);
    }
    return nullptr;
}

inline std::size_t count_entries(char *const *list) noexcept {
    std::size_t count = 0;
    while (list != nullptr && list[count] != nullptr) ++count;
    return count;
}

// "PLANLOOP_SESSION=name!…" for an environment that has the session; false when there is nothing to tell.
inline bool write_session(Thread &me, Text &text, Handover handover) noexcept {
    text << kSessionName << settings.session << "!";
    return append_inherited(me, text, handover);
}

// The same for an environment that the program made itself, without us in it.
inline bool write_carried_session(Thread &me, Text &text, Handover handover) noexcept {
    char home[Settings::kMostPath];
    std::strcpy(home, settings.spool_folder);
    char *end = std::strstr(home, "/sessions/");
    for (char *next = end; next != nullptr; next = std::strstr(next + 1, "/sessions/")) end = next;
    if (end == nullptr || std::strchr(home, '!') != nullptr) return false;
    *end = '\0';
    text << kSessionName << settings.session << "!+" << home << "!" << settings.trace_id << "!";
    append_inherited(me, text, handover);
    return text.whole();
}

// LD_PRELOAD with us in it again; what the program put there keeps its place behind.
inline bool write_preload(char *const *environment, Text &text) noexcept {
    char **present = find_entry(environment, kPreloadName);
    if (settings.own_preload[0] == '\0' ||
        (present != nullptr && std::strstr(*present, settings.own_preload) != nullptr)) {
        return false;
    }
    text << kPreloadName << settings.own_preload;
    if (present != nullptr && (*present)[sizeof(kPreloadName) - 1] != '\0') {
        text << ":" << *present + sizeof(kPreloadName) - 1;
    }
    return text.whole();
}

// A copy of a program's environment with some entries replaced or added. It lives on this frame, a very large one in a
// mapping, since stacks can be small and exec must not allocate.
class EnvironmentCopy {
  public:
    explicit EnvironmentCopy(char *const *environment) noexcept
        : count_(count_entries(environment)), bytes_((count_ + kMostAdded + 1) * sizeof(char *)) {
        if (bytes_ > sizeof(small_)) {
            const long mapped = wire::raw_syscall(SYS_mmap, nullptr, bytes_, PROT_READ | PROT_WRITE,
                                                  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
            entries_ = mapped < 0 && mapped > -4096 ? nullptr : reinterpret_cast<char **>(mapped);
        }
        if (entries_ == nullptr) return;
        if (environment != nullptr) std::memcpy(entries_, environment, count_ * sizeof(char *));
        entries_[count_] = nullptr;
    }
    ~EnvironmentCopy() noexcept {
        if (entries_ != nullptr && entries_ != small_) wire::raw_syscall(SYS_munmap, entries_, bytes_);
    }
    EnvironmentCopy(const EnvironmentCopy &) = delete;
    EnvironmentCopy &operator=(const EnvironmentCopy &) = delete;

    template <std::size_t size>
    void set(const char (&name)[size], char *entry) noexcept {
        if (char **present = find_entry(entries_, name)) {
            *present = entry;
        } else {
            entries_[count_++] = entry;
            entries_[count_] = nullptr;
        }
    }
    char *const *entries() const noexcept { return entries_; }

  private:
    static constexpr std::size_t kMostAdded = 2;
    static constexpr std::size_t kOnStack = 384;
    char *small_[kOnStack];
    char **entries_ = small_;
    std::size_t count_;
    std::size_t bytes_;
};

// For an environment without the session: the next program is recorded all the same.
template <class Call>
__attribute__((noinline)) auto with_carried_environment(char *const *environment, Handover handover, Call call) {
    char session[kCarriedBytes];
    char preload[kPreloadBytes];
    Text session_text(session, sizeof(session));
    Text preload_text(preload, sizeof(preload));
    const bool preload_needed = write_preload(environment, preload_text);
    if (settings.own_preload[0] == '\0' || !write_carried_session(thread, session_text, handover))
        return call(environment);
    EnvironmentCopy copy(environment);
    if (copy.entries() == nullptr) return call(environment);
    copy.set(kSessionName, session);
    if (preload_needed) copy.set(kPreloadName, preload);
    return call(copy.entries());
}

// For a program that must not make system calls of ours either. Its environment is looked at without asking the kernel:
// who forbids itself system calls passes no pointers that lead nowhere.
template <class Call>
__attribute__((noinline)) auto with_sealed_environment(char *const *environment, Call call) {
    char **session = find_entry(environment, kSessionName);
    if (session == nullptr || std::strstr(*session, kSealedMark) != nullptr) return call(environment);
    char entry[kSessionBytes];
    Text(entry, sizeof(entry)) << kSessionName << settings.session << kSealedMark;
    EnvironmentCopy copy(environment);
    if (copy.entries() == nullptr) return call(environment);
    copy.set(kSessionName, entry);
    return call(copy.entries());
}

// Calls `call(environment)` with the program's environment, or, when it lacks us or the new image will hold locks, with
// a copy that says so.
template <class Call>
auto with_environment(char *const *environment, Handover handover, Call call) {
    if (settings.sealed) return with_sealed_environment(environment, call);
    if (!settings.enabled) return call(environment);
    // A pointer that leads nowhere is the kernel's to refuse.
    if (environment != nullptr && !wire::readable(environment, sizeof(char *))) return call(environment);
    if (find_entry(environment, kSessionName) == nullptr) return with_carried_environment(environment, handover, call);
    char session[kSessionBytes];
    char preload[kPreloadBytes];
    Text session_text(session, sizeof(session));
    Text preload_text(preload, sizeof(preload));
    const bool preload_needed = write_preload(environment, preload_text);
    const bool session_needed = write_session(thread, session_text, handover);
    if (!preload_needed && !session_needed) return call(environment);
    EnvironmentCopy copy(environment);
    if (copy.entries() == nullptr) return call(environment);
    if (session_needed) copy.set(kSessionName, session);
    if (preload_needed) copy.set(kPreloadName, preload);
    return call(copy.entries());
}

// An exec, whatever it is called by.
template <class Call>
auto record_exec(char *const *environment, Call call) {
    ExecRecord record;
    record.begin();
    const auto result = with_environment(environment, Handover::as_they_are, call);
    record.failed();
    return result;
}

}  // namespace planloop::shim

#endif
