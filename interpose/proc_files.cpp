#include "interpose/proc_files.h"

#include <atomic>

#include "lockcore/wire/spool_writer.h"

namespace planloop::shim {

void Text::put(char c) noexcept {
    cut_ = cut_ || length_ + 1 >= room_;
    if (cut_) return;
    out_[length_++] = c;
    out_[length_] = '\0';
}

Text &Text::operator<<(const char *text) noexcept {
    while (*text != '\0') put(*text++);
    return *this;
}

Text &Text::operator<<(std::uint64_t value) noexcept {
    char digits[20];
    std::size_t count = 0;
    do {
        digits[count++] = static_cast<char>('0' + value % 10);
        value /= 10;
    } while (value != 0);
    while (count > 0) put(digits[--count]);
    return *this;
}

std::uint64_t take_number(const char *&text) noexcept {
    std::uint64_t value = 0;
    while (*text >= '0' && *text <= '9') value = value * 10 + static_cast<std::uint64_t>(*text++ - '0');
    return value;
}

const char *skip_spaces(const char *text) noexcept {
    while (*text == ' ' || *text == '\t') ++text;
    return text;
}

const char *next_word(const char *text) noexcept {
    while (*text != '\0' && *text != ' ' && *text != '\t' && *text != '\n') ++text;
    return skip_spaces(text);
}

bool proc_has_our_pids() noexcept {
    static std::atomic<std::int64_t> known;  // our pid, negative where /proc has another: a child asks anew
    const long own = wire::raw_syscall(SYS_getpid);
    const std::int64_t before = known.load(std::memory_order_relaxed);
    if (before == own || before == -own) return before > 0;
    char number[24];
    read_link("/proc/self", number, sizeof(number));
    const char *digits = number;
    const bool ours = take_number(digits) == static_cast<std::uint64_t>(own);
    known.store(ours ? own : -own, std::memory_order_relaxed);
    return ours;
}

namespace {

void begin_path(Text &path, std::int32_t pid, const char *name) noexcept {
    path << "/proc/";
    if (pid == wire::raw_syscall(SYS_getpid)) {
        path << "self";
    } else if (proc_has_our_pids()) {
        path << static_cast<std::uint64_t>(pid);
    }
    path << "/" << name;
}

}  // namespace

ProcPath::ProcPath(std::int32_t pid, const char *name) noexcept {
    Text path(path_, sizeof(path_));
    begin_path(path, pid, name);
}

ProcPath::ProcPath(std::int32_t pid, const char *name, int number) noexcept {
    Text path(path_, sizeof(path_));
    begin_path(path, pid, name);
    path << "/" << static_cast<std::uint64_t>(number);
}

std::size_t read_text(const char *path, char *out, std::size_t room) noexcept {
    std::size_t length = 0;
    const int fd = wire::raw_open(path, O_RDONLY);
    while (fd >= 0 && length + 1 < room) {
        const long got = wire::raw_syscall(SYS_read, fd, out + length, room - 1 - length);
        if (got <= 0) break;
        length += static_cast<std::size_t>(got);
    }
    if (fd >= 0) wire::raw_close(fd);
    out[length] = '\0';
    return length;
}

std::size_t read_link(const char *path, char *out, std::size_t room) noexcept {
    const long got = wire::raw_syscall(SYS_readlinkat, AT_FDCWD, path, out, room - 1);
    const std::size_t length = got > 0 ? static_cast<std::size_t>(got) : 0;
    out[length] = '\0';
    return length;
}

ProcStat read_stat(std::int32_t pid) noexcept {
    ProcStat stat;
    char text[1024];
    read_text(ProcPath(pid, "stat").c_str(), text, sizeof(text));
    // The command in field 2 may hold spaces and parentheses: count from its last ')', before field 3. Not by strrchr:
    // a function of libc that nobody called yet costs a forked child four page faults.
    const char *word = nullptr;
    for (const char *at = text; *at != '\0'; ++at) {
        if (*at == ')') word = at;
    }
    if (word == nullptr) return stat;
    word = skip_spaces(word + 1);
    for (int field = 3; *word != '\0' && field <= 22; ++field, word = next_word(word)) {
        const char *digits = word;
        if (field == 4) stat.parent = static_cast<std::int32_t>(take_number(digits));
        if (field == 22) stat.start_time = take_number(digits);
    }
    if (pid == wire::raw_syscall(SYS_getpid)) stat.parent = static_cast<std::int32_t>(wire::raw_syscall(SYS_getppid));
    return stat;
}

}  // namespace planloop::shim
