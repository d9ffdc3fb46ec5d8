// Where in a program a lock call was made: function, file and line where debug information is at hand, else the module
// and the offset in it.
//
// A recording holds return addresses and, for each process image, what was mapped there: base, build-id and path of the
// modules that made lock calls. CallSiteNames turns an offset in a module into names, off-line, through libdw: with the
// module itself, or with its separate debug information under /usr/lib/debug (by build-id or .gnu_debuglink). Nothing
// is fetched from the network. A file that was replaced since, which its build-id tells, is not asked.
//
// A call that the compiler put into a function together with a header's code (a wrapper of the standard library or of
// Boost) is told by the line of the program that uses the header.
//
// Threads: externally synchronised. Errors: none; what cannot be told stays empty, and `remark` says why.
#ifndef PLANLOOP_ANALYSIS_CALL_SITE_H
#define PLANLOOP_ANALYSIS_CALL_SITE_H

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>

namespace planloop::analysis {

struct CallSite {
    std::string function;      // demangled; empty: not known
    std::string file;          // as the compiler was told; empty: not known
    std::uint32_t line = 0;    // 0: not known
    std::string module;        // path of the program or library; empty: not recorded, or code that lies in no file
    std::uint64_t offset = 0;  // of the call's last byte in the module, as its symbol table and objdump count
    std::string remark;        // why there is no more; empty: there is, or nobody knows

    bool known() const { return !module.empty(); }
};

// "transfer() at bank.cpp:40", "transfer() in bank+0x12f4", "bank+0x12f4", "?": one word group for a sentence.
std::string call_site_words(const CallSite &site);

struct CodeModule {
    std::string path;
    std::string build_id;  // its bytes; empty: it has none
};

class CallSiteNames {
  public:
    explicit CallSiteNames(std::string debug_folder = "/usr/lib/debug");
    ~CallSiteNames();
    CallSiteNames(const CallSiteNames &) = delete;
    CallSiteNames &operator=(const CallSiteNames &) = delete;

    // `offset` as in CallSite. Opens the module's files at the first question about it and keeps them open.
    CallSite look_up(const CodeModule &module, std::uint64_t offset);

  private:
    class Module;

    std::string debug_folder_;
    std::map<std::pair<std::string, std::string>, std::unique_ptr<Module>> modules_;
};

}  // namespace planloop::analysis

#endif
