#include "interpose/settings.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lockcore/wire/raw_syscall.h"

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
bool valid_session(const char *id, std::size_t length) noexcept {
    if (length == 0 || length >= sizeof(Settings::session) || id[0] == '.') return false;
    for (std::size_t i = 0; i < length; ++i) {
        if (id[i] == '/' || static_cast<unsigned char>(id[i]) < 0x20 || id[i] == 0x7f) return false;
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

void read_settings() noexcept {
    if (settings.read) return;
    const char *session = nullptr;
    const char *home = nullptr;
    const char *user_home = nullptr;
    const char *trace_id = nullptr;
    bool refused = false;
    for (char **entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
        if ((*entry)[0] == 'H') {
            if (const char *value = after(*entry, "HOME")) user_home = value;
        } else if (std::strncmp(*entry, "PLANLOOP_", 9) == 0) {
            if (const char *value = after(*entry, "PLANLOOP_SESSION")) session = value;
            if (const char *value = after(*entry, "PLANLOOP_HOME")) home = value;
            if (const char *value = after(*entry, "PLANLOOP_TRACE_ID")) trace_id = value;
            if (const char *value = after(*entry, "PLANLOOP_NO_RECORDING")) refused = std::strcmp(value, "1") == 0;
        }
    }
    if (session != nullptr && !refused) {
        const char *bang = std::strchr(session, '!');
        const std::size_t length = bang != nullptr ? static_cast<std::size_t>(bang - session) : std::strlen(session);
        if (valid_session(session, length)) {
            std::memcpy(settings.session, session, length);
            if (bang != nullptr && std::strlen(bang + 1) < sizeof(settings.inherited)) {
                std::strcpy(settings.inherited, bang + 1);
                settings.inherits = true;
            }
            settings.enabled = build_spool_folder(home, user_home);
        }
    }
    if (trace_id != nullptr && std::strlen(trace_id) < sizeof(settings.trace_id))
        std::strcpy(settings.trace_id, trace_id);
    settings.read = true;
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
