#include "analysis/source/site_table.h"

#include <algorithm>
#include <cstring>

#include "lockcore/wire/record.h"

namespace planloop::analysis {
namespace {

// A number for module and offset together needs room for both; no file is longer than this.
constexpr unsigned kOffsetBits = 44;
constexpr std::uint32_t kMostModules = std::uint32_t{1} << 19;
constexpr std::uint32_t kMostPlaces = std::uint32_t{1} << 24;  // only a damaged file has more

}  // namespace

void SiteTable::learn(std::uint32_t process, std::string_view payload, const std::string &executable,
                      const std::string &working_folder) {
    wire::ModuleBody body{};
    if (payload.size() < sizeof(body)) return;
    std::memcpy(&body, payload.data(), sizeof(body));
    payload.remove_prefix(sizeof(body));
    if (body.end <= body.begin || body.build_id_bytes > sizeof(body.build_id)) return;
    CodeModule module;
    module.path = payload.substr(0, payload.find('\0'));
    if (module.path.empty()) module.path = executable;
    if (!module.path.empty() && module.path.front() != '/' && module.path.find('/') != std::string::npos)
        module.path = working_folder + '/' + module.path;
    module.build_id.assign(reinterpret_cast<const char *>(body.build_id), body.build_id_bytes);
    if (modules_.size() == kMostModules) return;
    const auto [known, fresh] =
        by_file_.try_emplace({module.path, module.build_id}, static_cast<std::uint32_t>(modules_.size()));
    if (fresh) modules_.push_back(std::move(module));

    std::vector<Mapped> &map = maps_[process];
    std::erase_if(map, [&](const Mapped &one) { return one.begin < body.end && body.begin < one.end; });
    map.push_back({body.begin, body.end, body.bias, known->second});
    for (Recent &one : recent_)
        if (one.process == process) one = {};
}

std::uint32_t SiteTable::find(std::uint32_t process, std::uint64_t return_address) {
    if (return_address == 0) return 0;
    Recent &recent = recent_[((return_address >> 2) ^ process) % kRecent];
    if (recent.address == return_address && recent.process == process) return recent.number;
    const std::uint32_t number = find_slowly(process, return_address);
    if (number != 0) recent = {return_address, process, number};
    return number;
}

std::uint32_t SiteTable::find_slowly(std::uint32_t process, std::uint64_t return_address) {
    const auto map = maps_.find(process);
    if (map == maps_.end()) return 0;
    const std::uint64_t address = return_address - 1;  // it points behind the call, perhaps at another line
    const auto mapped = std::find_if(map->second.begin(), map->second.end(),
                                     [&](const Mapped &one) { return address >= one.begin && address < one.end; });
    if (mapped == map->second.end()) return 0;
    const std::uint64_t offset = address - mapped->bias;
    if (offset >> kOffsetBits != 0) return 0;
    const std::uint64_t key = std::uint64_t{mapped->module} << kOffsetBits | offset;
    const Index known = by_offset_.find(key);
    if (known != kNone) return known;
    if (places_.size() == kMostPlaces) return 0;
    places_.push_back({mapped->module, offset, std::nullopt});
    const auto number = static_cast<std::uint32_t>(places_.size());
    by_offset_.put(key, number);
    return number;
}

const CallSite &SiteTable::site(std::uint32_t number) const {
    static const CallSite nowhere;
    if (number == 0 || number > places_.size()) return nowhere;
    Place &place = places_[number - 1];
    if (!place.site) place.site = names_.look_up(modules_[place.module], place.offset);
    return *place.site;
}

}  // namespace planloop::analysis
