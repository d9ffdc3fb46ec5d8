#include "interpose/introduction.h"

#include <sys/stat.h>

#include <cstring>

#include "interpose/inherited.h"
#include "interpose/proc_files.h"
#include "interpose/settings.h"

namespace planloop::shim {

namespace {

wire::Record *claim_record(Thread &me, wire::RecordKind kind, const wire::TextPiece *pieces,
                           std::size_t count) noexcept {
    wire::Record *record = me.stream.claim_with_text(process.spool, me.who(process), pieces, count);
    if (record == nullptr) return nullptr;
    record->kind = kind;
    record->begin = process.spool.ticks();
    return record;
}

// The payload of this process's own record, for a ring. Written by the thread that attaches, before any other records.
char own_portrait[7168];
std::size_t own_portrait_length;

// The payload of a `process` or `sharer` record. The texts are read here, so this takes six kilobytes of stack.
class Portrait {
  public:
    explicit Portrait(const wire::ProcessBody &body) noexcept : body_(body) {
        command_length_ = read_text(ProcPath(body.pid, "cmdline").c_str(), command_, sizeof(command_));
        while (command_length_ > 0 && command_[command_length_ - 1] == '\0') --command_length_;
        for (std::size_t i = 0; i < command_length_; ++i) {
            if (command_[i] == '\0') command_[i] = ' ';
        }
        read_link(ProcPath(body.pid, "exe").c_str(), executable_, sizeof(executable_));
        // For oneself a call of its own, which makes no entry in /proc. It fails where the folder was removed.
        const bool own = wire::raw_syscall(SYS_getpid) == body.pid;
        if (!own || wire::raw_syscall(SYS_getcwd, folder_, sizeof(folder_)) <= 0 || folder_[0] != '/') {
            read_link(ProcPath(body.pid, "cwd").c_str(), folder_, sizeof(folder_));
        }
    }

    wire::Record *claim(Thread &me, wire::RecordKind kind) const noexcept {
        const Pieces pieces(*this);
        return claim_record(me, kind, pieces.list, kPieces);
    }

    // Puts the whole payload into `out`; its length, or 0 when it does not fit.
    std::size_t copy(char *out, std::size_t room) const noexcept {
        const Pieces pieces(*this);
        std::size_t length = 0;
        for (const wire::TextPiece &piece : pieces.list) {
            if (piece.bytes > room - length) return 0;
            std::memcpy(out + length, piece.data, piece.bytes);
            length += piece.bytes;
        }
        return length;
    }

  private:
    static constexpr std::size_t kPieces = 7;
    struct Pieces {
        explicit Pieces(const Portrait &of) noexcept
            : list{{&of.body_, sizeof(of.body_)},
                   {of.command_, of.command_length_},
                   {"", 1},
                   {of.executable_, std::strlen(of.executable_) + 1},
                   {of.folder_, std::strlen(of.folder_) + 1},
                   {settings.trace_id, std::strlen(settings.trace_id) + 1},
                   {"", 1}} {}  // operation: the reader names it after the process
        wire::TextPiece list[kPieces];
    };

    wire::ProcessBody body_;
    char command_[4096];
    char executable_[1024];
    char folder_[1024];
    std::size_t command_length_;
};

}  // namespace

void introduce_self(Thread &me, std::uint32_t parent_image) noexcept {
    const InheritedImage from = inherited_image();
    wire::ProcessBody body{};
    body.pid = process.identity.pid;
    const ProcStat stat = read_stat(body.pid);
    body.parent_pid = stat.parent;
    body.start_time = stat.start_time;
    body.uid = static_cast<std::uint32_t>(wire::raw_syscall(SYS_getuid));
    body.parent_process = parent_image != 0 ? parent_image : from.image;
    body.replaced_by_exec = parent_image == 0 && from.pid == body.pid ? 1 : 0;
    const Portrait portrait(body);
    if (wire::Record *record = portrait.claim(me, wire::RecordKind::process)) {
        me.stream.publish(record, wire::State::complete);
    }
    if (!process.spool.is_ring()) return;
    own_portrait_length = portrait.copy(own_portrait, sizeof(own_portrait));
    me.ring_chunk = me.stream.chunk_number();
    std::memset(me.ring_files, 0, sizeof(me.ring_files));
}

void repeat_introduction(Thread &me) noexcept {
    const wire::TextPiece piece{own_portrait, own_portrait_length};
    if (own_portrait_length == 0) return;
    if (wire::Record *record = claim_record(me, wire::RecordKind::process, &piece, 1)) {
        record->flags = wire::kRepeated;
        me.stream.publish(record, wire::State::complete);
    }
}

void introduce_sharer(Thread &me, ForeignDescriptor there, std::uint64_t seen, wire::Family family, int fd,
                      Identity identity) noexcept {
    wire::ProcessBody body{};
    body.pid = there.pid;
    const ProcStat stat = read_stat(there.pid);
    body.parent_pid = stat.parent;
    body.start_time = stat.start_time;
    struct stat owner {};
    if (wire::raw_syscall(SYS_newfstatat, AT_FDCWD, ProcPath(there.pid, "stat").c_str(), &owner, 0) == 0)
        body.uid = owner.st_uid;
    wire::Record *record = Portrait(body).claim(me, wire::RecordKind::sharer);
    if (record == nullptr) return;
    record->family = family;
    record->fd = fd;
    record->file = identity.file;
    record->description = identity.description;
    record->a = static_cast<std::uint64_t>(there.pid);
    record->b = static_cast<std::uint64_t>(there.fd);
    record->begin = seen;
    me.stream.publish(record, wire::State::complete);
}

}  // namespace planloop::shim
