#include "analysis/source/thread_look.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <algorithm>
#include <cerrno>
#include <string_view>

#include "analysis/source/proc_text.h"
#include "lockcore/lock_id.h"

namespace planloop::analysis {
namespace {

// proc(5): number of the call and its arguments in hex; "running"; "-1 …" for a thread that sleeps outside of any.
void look_at_call(std::string_view text, ThreadLook &look) {
    look.doing = Doing::other;
    const std::optional<std::int64_t> call = to_number(take_word(text));
    if (!call) return;
    const auto argument = [&] { return to_number(take_word(text), 16).value_or(0); };
    const std::int64_t first = argument();
    const std::int64_t second = argument();
    if (*call == SYS_flock || (*call == SYS_fcntl && (second == F_SETLKW || second == F_OFD_SETLKW))) {
        look.doing = Doing::lock_wait;
        look.fd = static_cast<std::int32_t>(first);
    } else if (*call == SYS_wait4) {
        look.doing = Doing::child_wait;
        look.child = static_cast<std::int32_t>(first);
    } else if (*call == SYS_waitid) {
        look.doing = Doing::child_wait;
        look.child = first == P_PID ? static_cast<std::int32_t>(second) : -1;
    }
}

// Where the kernel put the thread to sleep, by the name of the function; "0" where that is a secret.
Doing doing_in(std::string_view function) {
    if (function.empty() || function == "0") return Doing::unknown;
    for (const std::string_view one : {"locks_lock_inode_wait", "flock_lock_inode_wait", "posix_lock_inode_wait",
                                       "fcntl_setlk", "do_lock_file_wait"})
        if (function.substr(0, one.size()) == one) return Doing::lock_wait;
    if (function.substr(0, 7) == "do_wait") return Doing::child_wait;
    return Doing::other;
}

}  // namespace

ThreadLook look_at_thread(std::int32_t pid, std::int32_t tid) {
    ThreadLook look;
    const std::string folder = fmt::format("/proc/{}/task/{}/", pid, tid);
    const std::optional<std::string> status = read_proc(folder + "status");
    if (!status) {
        look.doing = errno == ENOENT || errno == ESRCH ? Doing::gone : Doing::unknown;
        return look;
    }
    const auto field = [&](std::string_view name) {
        const std::size_t at = status->find(name);
        std::string_view rest = at == std::string::npos ? std::string_view{} : std::string_view(*status).substr(at);
        rest.remove_prefix(std::min(name.size(), rest.size()));
        return take_word(rest);
    };
    const std::string_view state = field("\nState:");
    look.switches = static_cast<std::uint64_t>(to_number(field("\nvoluntary_ctxt_switches:")).value_or(0)) +
                    static_cast<std::uint64_t>(to_number(field("\nnonvoluntary_ctxt_switches:")).value_or(0));
    if (state == "Z" || state == "X") {
        look.doing = Doing::gone;
    } else if (const std::optional<std::string> call = read_proc(folder + "syscall")) {
        look_at_call(*call, look);
    } else if (state == "R") {
        look.doing = Doing::other;
    } else if (const std::optional<std::string> function = read_proc(folder + "wchan")) {
        look.doing = doing_in(*function);
    }
    return look;
}

bool still_waiting(const std::vector<Participant> &participants) {
    return std::all_of(participants.begin(), participants.end(), [](const Participant &one) {
        const Doing doing = look_at_thread(one.pid, one.tid).doing;
        if (doing == Doing::gone) return false;
        // Locks of other kinds wait in their own ways: on a futex, or for a thread that asks the kernel for them.
        const std::optional<LockId> lock =
            parse_lock_id(std::string_view(one.waits_for).substr(0, one.waits_for.find('#')));
        const bool kernel_waits = lock && (lock->family == wire::Family::flock || lock->family == wire::Family::posix ||
                                           lock->family == wire::Family::ofd);
        return !kernel_waits || doing != Doing::other;
    });
}

}  // namespace planloop::analysis
