#include "lockcore/file_system_rules.h"

#include <gtest/gtest.h>
#include <linux/magic.h>

#include <set>

namespace planloop {
namespace {

TEST(FileSystemRules, NumbersAreTheKernelsOwn) {
    struct Case {
        unsigned long magic;
        const char *name;
        bool changed;
    };
    constexpr Case kCases[] = {
        {EXT4_SUPER_MAGIC, "ext4", false},
        {XFS_SUPER_MAGIC, "xfs", false},
        {BTRFS_SUPER_MAGIC, "btrfs", false},
        {TMPFS_MAGIC, "tmpfs", false},
        {F2FS_SUPER_MAGIC, "f2fs", false},
        {NFS_SUPER_MAGIC, "nfs", true},
        {CIFS_SUPER_MAGIC, "cifs", true},
        {SMB2_SUPER_MAGIC, "smb", true},
        {FUSE_SUPER_MAGIC, "fuse", true},
        {OVERLAYFS_SUPER_MAGIC, "overlay", true},
        {V9FS_MAGIC, "9p", true},
        {CEPH_SUPER_MAGIC, "ceph", true},
        {OCFS2_SUPER_MAGIC, "ocfs2", true},
    };
    for (const Case &each : kCases) {
        EXPECT_EQ(rules_of_file_system(each.magic).name, each.name);
        EXPECT_EQ(rules_of_file_system(each.magic).changed, each.changed) << each.name;
    }
}

TEST(FileSystemRules, SignedNumbersOfOldKernelsAreTheSame) {
    const long as_signed = static_cast<int>(CIFS_SUPER_MAGIC);
    EXPECT_EQ(rules_of_file_system(static_cast<unsigned long>(as_signed)).name, "cifs");
}

TEST(FileSystemRules, AnUnknownOneIsSaidToBeUnknown) {
    EXPECT_EQ(rules_of_file_system(0x12345).name, "");
    EXPECT_TRUE(rules_of_file_system(0x12345).changed);
}

}  // namespace
}  // namespace planloop
