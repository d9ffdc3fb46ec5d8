#include "analysis/source/system_locks.h"

#include <gtest/gtest.h>
#include <sys/sysmacros.h>

namespace planloop::analysis {
namespace {

TEST(LockLine, ReadsWhatTheKernelWrites) {
    const auto flock = parse_lock_line("1: FLOCK  ADVISORY  WRITE 4711 fe:01:1234 0 EOF");
    ASSERT_TRUE(flock);
    EXPECT_FALSE(flock->waits);
    EXPECT_EQ(flock->family, wire::Family::flock);
    EXPECT_EQ(flock->mode, wire::Mode::exclusive);
    EXPECT_EQ(flock->pid, 4711);
    EXPECT_EQ(flock->device, makedev(0xfe, 1));
    EXPECT_EQ(flock->inode, 1234u);
    EXPECT_EQ(flock->len, 0u);
    const auto waiter = parse_lock_line("12:  -> POSIX  ADVISORY  READ 5 08:02:9 10 19");
    ASSERT_TRUE(waiter);
    EXPECT_TRUE(waiter->waits);
    EXPECT_EQ(waiter->family, wire::Family::posix);
    EXPECT_EQ(waiter->mode, wire::Mode::shared);
    EXPECT_EQ(waiter->start, 10u);
    EXPECT_EQ(waiter->len, 10u);
    const auto ofd = parse_lock_line("3: OFDLCK ADVISORY  WRITE -1 00:2a:77 0 EOF");
    ASSERT_TRUE(ofd);
    EXPECT_EQ(ofd->pid, -1);
}

TEST(LockLine, LeavesOutWhatIsNoLockOrNotUnderstood) {
    for (const char *line :
         {"", "1:", "1: LEASE  ACTIVE    READ  5 08:02:9 0 EOF", "1: FLOCK  ADVISORY  RW 5 08:02:9 0 EOF",
          "1: FLOCK  ADVISORY  WRITE x 08:02:9 0 EOF", "1: FLOCK  ADVISORY  WRITE 5 08:9 0 EOF",
          "1: FLOCK  ADVISORY  WRITE 5 08:02:9", "1: FLOCK  ADVISORY  WRITE 5 08:02:9 0 x"})
        EXPECT_FALSE(parse_lock_line(line)) << line;
}

}  // namespace
}  // namespace planloop::analysis
