// Small things that a test wants done by a program of its own that links lockcore.
//
//   lockcore_probe trace                    starts two operations and prints their trace ids
//   lockcore_probe close-while-locked PATH  takes a FileLock, opens and closes its file beside it, and prints whether
//                                           another process then finds the lock "kept" or "lost"
//   lockcore_probe lock-calls SPOOL         each lock call of a recording, as recorded: "TID BEGIN FAMILY MODE START
//   LENGTH
//                                           ERRNO", with the mode of an unlock `none` and BEGIN in ticks

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cinttypes>
#include <cstdio>
#include <mutex>
#include <string_view>

#include "lockcore/file_lock.h"
#include "lockcore/operation_trace.h"
#include "lockcore/spool_reader.h"

namespace {

int print_traces() {
    for (const char *operation : {"first", "second"}) std::puts(planloop::start_operation_trace(operation).c_str());
    return 0;
}

int close_while_locked(const char *path) {
    planloop::FileLock lock(path);
    const std::lock_guard guard(lock);
    ::close(::open(path, O_RDONLY | O_CLOEXEC));
    const pid_t other = ::fork();
    if (other == 0) {
        planloop::FileLock same(path, planloop::FileLock::Recorded::no);
        ::_exit(same.try_lock() ? 1 : 0);
    }
    int status = 0;
    if (::waitpid(other, &status, 0) != other || !WIFEXITED(status)) return 1;
    std::puts(WEXITSTATUS(status) == 1 ? "lost" : "kept");
    return 0;
}

int print_lock_calls(const char *path) {
    auto spool = planloop::SpoolReader::open(path);
    if (!spool) {
        std::fprintf(stderr, "%s\n", spool.error().message.c_str());
        return 1;
    }
    constexpr const char *kFamilies[] = {
#define PLANLOOP_LOCK_FAMILY(family, name, owner, ranged) #name,
#include "lockcore/wire/lock_families.inc"
#undef PLANLOOP_LOCK_FAMILY
    };
    constexpr const char *kModes[] = {"none", "shared", "exclusive"};
    planloop::SpoolReader &reader = **spool;
    for (std::size_t stream = 0; stream < reader.streams().size(); ++stream) {
        planloop::StreamCursor cursor(stream);
        planloop::SpoolRecord record;
        while (cursor.next(reader, record)) {
            using planloop::wire::RecordKind;
            if (record.kind != RecordKind::acquire && record.kind != RecordKind::release) continue;
            std::printf("%d %" PRIu64 " %s %s %" PRIu64 " %" PRIu64 " %d\n", record.tid, record.begin,
                        kFamilies[static_cast<int>(record.family)], kModes[static_cast<int>(record.mode)], record.a,
                        record.b, record.error);
        }
    }
    return 0;
}

}  // namespace

int main(int argc, char **argv) {
    const std::string_view what = argc > 1 ? argv[1] : "";
    if (what == "trace") return print_traces();
    if (what == "close-while-locked" && argc == 3) return close_while_locked(argv[2]);
    if (what == "lock-calls" && argc == 3) return print_lock_calls(argv[2]);
    return 2;
}
