#include "interpose/sharing_mark.h"

#include <fcntl.h>

#include <cerrno>

#include "interpose/attach.h"
#include "interpose/descriptors.h"
#include "interpose/real.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

// Written here and not by Text, whose code no start needs otherwise.
struct MarkPath {
    PLANLOOP_AT_START MarkPath() noexcept {
        constexpr char kName[] = "/shared";
        char *out = text;
        for (const char *in = settings.spool_folder; *in != '\0'; ++in) *out++ = *in;
        for (const char c : kName) *out++ = c;
    }
    char text[Settings::kMostPath + 8];
};

// Among initialised data, which a start writes to anyway.
__attribute__((section(".data"))) std::atomic<std::uint32_t> looks{0};

PLANLOOP_AT_START bool sharing_is_marked() noexcept {
    return wire::raw_syscall(SYS_faccessat, AT_FDCWD, MarkPath().text, F_OK) == 0;
}

}  // namespace

PLANLOOP_AT_START void expect_shares() noexcept {
    const std::atomic<std::uint64_t> *not_open = &kNothingShared;
    if (!shares_about.compare_exchange_strong(not_open, &kNotLooked)) return;
    if (sharing_is_marked()) open_spool(Missing::stays_missing);
}

PLANLOOP_AT_START bool look_whether_shared() noexcept {
    constexpr std::uint32_t kOften = 4, kVeryOften = 64;
    const std::uint32_t before = looks.fetch_add(1, std::memory_order_relaxed);
    const bool marked = sharing_is_marked();
    if (!marked && before != kOften && before < kVeryOften) return false;
    if (open_spool(before < kVeryOften ? Missing::stays_missing : Missing::is_made)) {
        return process.spool.header().shares_about.load(std::memory_order_acquire) != 0;
    }
    const int error = process.open_error.load(std::memory_order_relaxed);
    if (error == -EMFILE || error == -ENFILE) {
        if (marked) process.unopened.fetch_add(1, std::memory_order_relaxed);  // counted once it can be opened
    } else if (before >= kVeryOften) {
        shares_about.store(&kNothingShared, std::memory_order_release);
    }
    return false;
}

bool mark_sharing() noexcept {
    // Never opens what is there, which may be a fifo.
    const int fd = wire::raw_open(MarkPath().text, O_WRONLY | O_CREAT | O_EXCL, 0600);
    if (fd >= 0) wire::raw_close(fd);
    return fd >= 0 || sharing_is_marked();
}

}  // namespace planloop::shim
