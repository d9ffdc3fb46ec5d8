#include "lockcore/file_system_rules.h"

namespace planloop {
namespace {

struct Row {
    unsigned long magic;
    FileSystemRules rules;
};

constexpr std::string_view kAsEverywhere =
    "flock, POSIX and open-file-description locks do what their manual pages say, among the processes of this machine";
constexpr std::string_view kSmb =
    "flock and POSIX locks conflict with each other there and are mandatory, so that other programs' reads and writes "
    "may fail (mount option nobrl: they exclude nobody on other machines)";
constexpr std::string_view kCluster =
    "locks go through the cluster, so the holder may be on another machine, which no recording here sees";
constexpr std::string_view kVirtual =
    "locks hold inside this virtual machine only; its host and other guests do not see them";

// statfs(2), linux/magic.h; those that stand in neither are from the file system's own sources.
constexpr Row kRows[] = {
    {0xef53, {"ext4", kAsEverywhere, false}},  // ext2 and ext3 have the same number
    {0x58465342, {"xfs", kAsEverywhere, false}},
    {0x9123683e, {"btrfs", kAsEverywhere, false}},
    {0x01021994, {"tmpfs", kAsEverywhere, false}},
    {0xf2f52010, {"f2fs", kAsEverywhere, false}},
    {0x2fc12fc1, {"zfs", kAsEverywhere, false}},
    {0x858458f6, {"ramfs", kAsEverywhere, false}},
    {0x4d44, {"vfat", kAsEverywhere, false}},
    {0x2011bab0, {"exfat", kAsEverywhere, false}},
    {0x6969,
     {"nfs",
      "flock is a POSIX lock of the whole file there, so the two conflict with each other, an exclusive one needs a "
      "file that is open for writing, and the holder may be on another machine, which no recording here sees",
      true}},
    {0xff534d42, {"cifs", kSmb, true}},
    {0xfe534d42, {"smb", kSmb, true}},
    {0x517b, {"smbfs", kSmb, true}},
    {0x65735546,
     {"fuse",
      "the program behind the mount decides: locks may hold on this machine only, go to a server, or be refused",
      true}},
    {0x794c7630,
     {"overlay",
      "a lock holds within this mount only: who has the file open in the layer below, or in another container's "
      "overlay of it, is not excluded",
      true}},
    {0x01021997,
     {"9p", "POSIX locks and flock go to the server of the mount, and whether others see them is its decision", true}},
    {0x0bd00bd0,
     {"lustre",
      "locks need the mount option flock (without it they fail with ENOSYS, with localflock they hold on this machine "
      "only), and the holder may be on another machine, which no recording here sees",
      true}},
    {0x00c36400, {"ceph", kCluster, true}},
    {0x01161970, {"gfs2", kCluster, true}},
    {0x7461636f, {"ocfs2", kCluster, true}},
    {0x6b414653, {"afs", "only whole files are locked there, and the holder may be on another machine", true}},
    {0x5346414f, {"openafs", "only whole files are locked there, and the holder may be on another machine", true}},
    {0x786f4256, {"vboxsf", kVirtual, true}},
    {0xbacbacbc, {"vmhgfs", kVirtual, true}},
};

}  // namespace

FileSystemRules rules_of_file_system(unsigned long magic) {
    for (const Row &row : kRows) {
        if (row.magic == (magic & 0xffffffffUL)) return row.rules;
    }
    return {{}, "planloop does not know what it does to locks", true};
}

}  // namespace planloop
