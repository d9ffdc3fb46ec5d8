// What lockcore asks of the library when both are in one process: see lockcore/wire/shim_link.h.
#include "lockcore/wire/shim_link.h"

#include "interpose/attach.h"
#include "interpose/descriptors.h"
#include "interpose/real.h"
#include "interpose/ring.h"
#include "interpose/settings.h"

namespace planloop::shim {
namespace {

wire::StreamWriter *stream(wire::SpoolWriter **spool, wire::WriterIdentity *who) noexcept {
    Thread &me = thread;
    if (!enter(me)) return nullptr;
    *spool = &process.spool;
    *who = me.who(process);
    return &me.stream;
}

std::uint32_t posix_file(int fd) noexcept {
    Thread &me = thread;
    if (!enter(me)) return 0;
    const Identity identity = identify_slowly(me, fd, wire::Family::posix);
    note_posix_lock(fd, identity.file);
    return identity.file;
}

void introduce() noexcept {
    introduce_in_chunk(thread);
}

void suppress(int by) noexcept {
    Thread &me = thread;
    me.suppressed += by;
}

struct FormatMark {
    char words[sizeof(wire::kFormatMark) - 1];
    char version;
};
constexpr FormatMark format_mark() noexcept {
    FormatMark mark{{}, static_cast<char>('0' + wire::kFormatVersion)};
    for (unsigned i = 0; i < sizeof(mark.words); ++i) mark.words[i] = wire::kFormatMark[i];
    return mark;
}
__attribute__((used)) constexpr FormatMark kMark = format_mark();

constexpr wire::ShimLink kLink{wire::kShimLinkVersion, wire::kFormatVersion, stream, posix_file, introduce, suppress};

}  // namespace
}  // namespace planloop::shim

extern "C" __attribute__((visibility("default"))) const planloop::wire::ShimLink *planloop_shim_link() noexcept {
    planloop::shim::read_settings();
    return planloop::shim::settings.enabled ? &planloop::shim::kLink : nullptr;
}
