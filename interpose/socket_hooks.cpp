// Descriptors that go over a Unix socket (unix(7), SCM_RIGHTS): from then on both ends may share them. Only what the
// real calls accepted is looked at, so no pointer of the program is followed that the kernel has not followed.
#include <sys/socket.h>

#include <cstring>

#include "interpose/descriptors.h"
#include "interpose/real.h"
#include "interpose/settings.h"
#include "interpose/shares.h"

namespace planloop::shim {

namespace {

// Calls visit(fd) for every descriptor that a message carries.
template <class Visit>
void for_each_passed(const msghdr &message, Visit visit) {
    if (message.msg_control == nullptr) return;
    auto &header = const_cast<msghdr &>(message);
    for (cmsghdr *part = CMSG_FIRSTHDR(&header); part != nullptr; part = CMSG_NXTHDR(&header, part)) {
        if (part->cmsg_level != SOL_SOCKET || part->cmsg_type != SCM_RIGHTS || part->cmsg_len < CMSG_LEN(0)) continue;
        const std::size_t count = (part->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (std::size_t i = 0; i < count; ++i) {
            int fd = -1;
            std::memcpy(&fd, CMSG_DATA(part) + i * sizeof(int), sizeof(fd));
            visit(fd);
        }
    }
}

// Opens the spool, too: it tells when the descriptor is locked at the other end.
bool concerns_us(int fd) {
    return may_record() && is_lockable(fd) && !in_vfork_child(thread) && open_spool();
}

void note_sent(const msghdr &message) {
    for_each_passed(message, [](int fd) {
        if (!concerns_us(fd)) return;
        note_perhaps_shared(fd);
        publish(fd);
    });
}

void note_received(const msghdr &message) {
    for_each_passed(message, [](int fd) {
        if (!concerns_us(fd)) return;
        forget_noted(fd);  // the number is new
        note_perhaps_shared(fd);
        if (shared_about()) adopt(fd);
    });
}

}  // namespace

}  // namespace planloop::shim

using namespace planloop::shim;

extern "C" ssize_t planloop_sendmsg(int fd, const msghdr *message, int flags) PLANLOOP_EXPORT(sendmsg);
ssize_t planloop_sendmsg(int fd, const msghdr *message, int flags) {
    const ssize_t sent = real<Symbol::sendmsg>()(fd, message, flags);
    if (sent >= 0) note_sent(*message);
    return sent;
}

extern "C" ssize_t planloop_recvmsg(int fd, msghdr *message, int flags) PLANLOOP_EXPORT(recvmsg);
ssize_t planloop_recvmsg(int fd, msghdr *message, int flags) {
    const ssize_t received = real<Symbol::recvmsg>()(fd, message, flags);
    if (received >= 0) note_received(*message);
    return received;
}

extern "C" int planloop_sendmmsg(int fd, mmsghdr *messages, unsigned count, int flags) PLANLOOP_EXPORT(sendmmsg);
int planloop_sendmmsg(int fd, mmsghdr *messages, unsigned count, int flags) {
    const int sent = real<Symbol::sendmmsg>()(fd, messages, count, flags);
    for (int i = 0; i < sent; ++i) note_sent(messages[i].msg_hdr);
    return sent;
}

extern "C" int planloop_recvmmsg(int fd, mmsghdr *messages, unsigned count, int flags, timespec *timeout)
    PLANLOOP_EXPORT(recvmmsg);
int planloop_recvmmsg(int fd, mmsghdr *messages, unsigned count, int flags, timespec *timeout) {
    const int received = real<Symbol::recvmmsg>()(fd, messages, count, flags, timeout);
    for (int i = 0; i < received; ++i) note_received(messages[i].msg_hdr);
    return received;
}
