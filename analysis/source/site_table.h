// Numbers for the places from which lock calls are made, out of return addresses and what a recording says about the
// address space of each process image.
//
// Two calls from the same place in the same file have the same number, whatever the process. Memory: a map for each
// process image, and the places. Threads: externally synchronised.
#ifndef PLANLOOP_ANALYSIS_SOURCE_SITE_TABLE_H
#define PLANLOOP_ANALYSIS_SOURCE_SITE_TABLE_H

#include <array>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "analysis/call_site.h"
#include "analysis/flat_map.h"

namespace planloop::analysis {

class SiteTable {
  public:
    // The payload of a `module` record of that process image, whose own file is `executable`; what it overlaps was
    // unloaded.
    void learn(std::uint32_t process, std::string_view payload, const std::string &executable,
               const std::string &working_folder);
    // 0: in no module that was told.
    std::uint32_t find(std::uint32_t process, std::uint64_t return_address);
    // Looked up at the first question.
    const CallSite &site(std::uint32_t number) const;

  private:
    struct Mapped {
        std::uint64_t begin, end, bias;
        std::uint32_t module;
    };
    struct Place {
        std::uint32_t module;
        std::uint64_t offset;
        std::optional<CallSite> site;
    };
    struct Recent {
        std::uint64_t address = 0;
        std::uint32_t process = 0, number = 0;
    };
    static constexpr std::size_t kRecent = 256;

    std::uint32_t find_slowly(std::uint32_t process, std::uint64_t return_address);

    std::unordered_map<std::uint32_t, std::vector<Mapped>> maps_;
    std::vector<CodeModule> modules_;
    std::map<std::pair<std::string, std::string>, std::uint32_t> by_file_;
    FlatMap by_offset_;
    mutable std::deque<Place> places_;  // by number less one
    mutable CallSiteNames names_;
    std::array<Recent, kRecent> recent_;
};

}  // namespace planloop::analysis

#endif
