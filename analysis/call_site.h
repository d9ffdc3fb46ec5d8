// Where in a program a lock call was made: function, file and line where debug information is at hand, else the module
// and the offset in it.
//
// A recording holds return addresses and, for each process image, what was mapped there: base, build-id and path of the
// modules that made lock calls. CallSites turns an offset in a module into names, off-line, through libdw: with the
// module itself, or with its separate debug information under /usr/lib/debug (by build-id or .gnu_debuglink). Nothing
// is fetched from the network. A file that was replaced since, which its build-id tells, is not asked.
//
// Threads: externally synchronised. Errors: none; what cannot be told stays empty, and `remark` says why.
#ifndef PLANLOOP_ANALYSIS_CALL_SITE_H
#define PLANLOOP_ANALYSIS_CALL_SITE_H

#include <cstdint>
#include <string>

namespace planloop::analysis {

struct CallSite {
    std::string function;      // demangled; empty: not known
    std::string file;          // as the compiler was told; empty: not known
    std::uint32_t line = 0;    // 0: not known
    std::string module;        // path of the program or library; empty: not recorded, or code that lies in no file
    std::uint64_t offset = 0;  // of the call in the module, as its symbol table and objdump count
    std::string remark;        // why there is no more; empty: there is, or nobody knows

    bool known() const { return !module.empty(); }
};

// "transfer() at bank.cpp:40", "transfer() in bank+0x12f4", "bank+0x12f4", "?": one word group for a sentence.
std::string call_site_words(const CallSite &site);

}  // namespace planloop::analysis

#endif
