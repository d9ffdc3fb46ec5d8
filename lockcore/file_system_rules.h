// What a file system does to file locks: flock(2) and fcntl(2) tell for NFS and SMB, the kernel's sources for the rest.
// Only what differs from a local disk is told; a name that is missing here makes no statement.
//
// Pure functions, thread-safe.
#ifndef PLANLOOP_LOCKCORE_FILE_SYSTEM_RULES_H
#define PLANLOOP_LOCKCORE_FILE_SYSTEM_RULES_H

#include <string_view>

namespace planloop {

struct FileSystemRules {
    std::string_view name;   // "nfs"; empty: not known
    std::string_view rules;  // one sentence, goes on after "FILE is on NAME: "
    bool changed;            // locks do not behave there as on a local disk
};

// `magic`: statfs::f_type, see statfs(2) and linux/magic.h.
FileSystemRules rules_of_file_system(unsigned long magic);

}  // namespace planloop

#endif
