#include "interpose/settings.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "interpose/real.h"
#include "lockcore/wire/raw_syscall.h"
#include "lockcore/wire/size_text.h"

namespace planloop::shim {

Settings settings;

namespace {

const char *after(const char *entry, const char *name) noexcept {
    const std::size_t length = std::strlen(name);
    return std::strncmp(entry, name, length) == 0 && entry[length] == '=' ? entry + length + 1 : nullptr;
}

bool append(char *out, std::size_t room, std::size_t &length, const char *text, std::size_t text_length) noexcept {
    if (length + text_length + 1 > room) return false;
    std::memcpy(out + length, text, text_length);
    length += text_length;
    out[length] = '\0';
    return true;
}

// The same rule as lockcore's valid_session_id: the id becomes a folder's name.
bool valid_session(const char *id) noexcept {
    if (id[0] == '\0' || id[0] == '.') return false;
    for (; *id != '\0'; ++id) {
        if (*id == '/' || static_cast<unsigned char>(*id) < 0x20 || *id == 0x7f) return false;
    }
    return true;
}

bool build_spool_folder(const char *home, const char *user_home) noexcept {
    std::size_t length = 0;
    char *out = settings.spool_folder;
    constexpr std::size_t kRoom = Settings::kMostPath;
    const bool own_home = home != nullptr && home[0] != '\0';
    if (!own_home && (user_home == nullptr || user_home[0] == '\0')) return false;
    const char *base = own_home ? home : user_home;
    if (base[0] != '/') {
        const long got = wire::raw_syscall(SYS_getcwd, out, kRoom);
        if (got <= 0) return false;
        length = static_cast<std::size_t>(got) - 1;
        if (!append(out, kRoom, length, "/", 1)) return false;
    }
    return append(out, kRoom, length, base, std::strlen(base)) &&
           (own_home || append(out, kRoom, length, "/.planloop", 10)) && append(out, kRoom, length, "/sessions/", 10) &&
           append(out, kRoom, length, settings.session, std::strlen(settings.session)) &&
           append(out, kRoom, length, "/logs/spool", 11);
}

}  // namespace

namespace {

struct Variables {
    const char *session = nullptr;
    const char *home = nullptr;
    const char *user_home = nullptr;
    const char *trace_id = nullptr;
    const char *preload = nullptr;
    const char *ring = nullptr;
    bool refused = false;
    bool captures_crashes = false;
};

Variables read_variables() noexcept {
    Variables found;
    for (char **entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        if ((*entry)[0] == 'H') {
            if (const char *value = after(*entry, "HOME")) found.user_home = value;
        } else if ((*entry)[0] == 'L') {
            if (const char *value = after(*entry, "LD_PRELOAD")) found.preload = value;
        } else if (std::strncmp(*entry, "PLANLOOP_", 9) == 0) {
            if (const char *value = after(*entry, "PLANLOOP_SESSION")) found.session = value;
            if (const char *value = after(*entry, "PLANLOOP_HOME")) found.home = value;
            if (const char *value = after(*entry, "PLANLOOP_TRACE_ID")) found.trace_id = value;
            if (const char *value = after(*entry, "PLANLOOP_RING")) found.ring = value;
            if (const char *value = after(*entry, "PLANLOOP_CAPTURE_CRASHES"))
                found.captures_crashes = std::strcmp(value, "1") == 0;
            if (const char *value = after(*entry, "PLANLOOP_NO_RECORDING"))
                found.refused = std::strcmp(value, "1") == 0;
        }
    }
    return found;
}

// Copies `text` up to `end` (its own end when that is null); false when it does not fit.
template <std::size_t size>
bool take(char (&out)[size], const char *text, const char *end) noexcept {
    const std::size_t length = end != nullptr ? static_cast<std::size_t>(end - text) : std::strlen(text);
    if (length >= size) return false;
    std::memcpy(out, text, length);
    out[length] = '\0';
    return true;
}

// The entry of LD_PRELOAD that is this library.
void find_own_preload(const char *list) noexcept {
    constexpr char kName[] = "libplanloop_preload.so";
    const auto separates = [](char c) { return c == ':' || c == ' '; };
    while (list != nullptr && *list != '\0') {
        const char *end = list;
        while (*end != '\0' && !separates(*end)) ++end;
        const auto length = static_cast<std::size_t>(end - list);
        if (length >= sizeof(kName) - 1 && std::memcmp(end - (sizeof(kName) - 1), kName, sizeof(kName) - 1) == 0) {
            take(settings.own_preload, list, end);
            return;
        }
        list = end;
        while (separates(*list)) ++list;
    }
}

}  // namespace

PLANLOOP_AT_START void read_settings() noexcept {
    // A library that is initialised before libc (-z initfirst) may lock when there is no environment yet.
    if (settings.read || environ == nullptr) return;
    const Variables found = read_variables();
    static char carried_home[Settings::kMostPath];
    const char *home = found.home;
    if (found.trace_id != nullptr) take(settings.trace_id, found.trace_id, nullptr);
    if (found.session != nullptr && !found.refused) {
        const char *bang = std::strchr(found.session, '!');
        bool valid = take(settings.session, found.session, bang) && valid_session(settings.session);
        const char *rest = bang != nullptr ? bang + 1 : nullptr;
        if (rest != nullptr && *rest == '+') {
            const char *trace = std::strchr(rest, '!');
            const char *inherited = trace != nullptr ? std::strchr(trace + 1, '!') : nullptr;
            valid = valid && inherited != nullptr && take(carried_home, rest + 1, trace) &&
                    take(settings.trace_id, trace + 1, inherited);
            home = carried_home;
            rest = inherited != nullptr ? inherited + 1 : nullptr;
            settings.carried = true;
        }
        settings.sealed = bang != nullptr && std::strcmp(bang, kSealedMark) == 0;
        if (valid && !settings.sealed) {
            settings.inherits = rest != nullptr && *rest != '\0' && take(settings.inherited, rest, nullptr);
            settings.enabled = build_spool_folder(home, found.user_home);
            settings.captures_crashes = found.captures_crashes;
            find_own_preload(found.preload);
            if (found.ring != nullptr) wire::parse_size(found.ring, settings.ring_bytes);
        }
    }
    settings.read = true;
}

PLANLOOP_AT_START void hide_carried_settings() noexcept {
    for (char **entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        if (after(*entry, "PLANLOOP_SESSION") == nullptr) continue;
        if (char *bang = std::strchr(*entry, '!')) *bang = '\0';
        if (!settings.carried) return;
        for (char **following = entry; *following != nullptr; ++following) *following = following[1];
        return;
    }
}

bool make_spool_folder() noexcept {
    // Walks up to the first folder that exists, then down again.
    char path[Settings::kMostPath];
    std::strcpy(path, settings.spool_folder);
    const std::size_t length = std::strlen(path);
    std::size_t end = length;
    for (;;) {
        const long made = wire::raw_syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
        if (made == 0 || made == -EEXIST) break;
        if (made != -ENOENT) return false;
        while (end > 1 && path[end - 1] != '/') --end;
        if (end <= 1) return false;
        path[--end] = '\0';
    }
    while (end < length) {
        path[end] = '/';
        end += std::strlen(path + end);
        const long made = wire::raw_syscall(SYS_mkdirat, AT_FDCWD, path, 0700);
        if (made != 0 && made != -EEXIST) return false;
    }
    return true;
}

}  // namespace planloop::shim
