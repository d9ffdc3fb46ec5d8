#include "analysis/call_site.h"

#include <cxxabi.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <string_view>

namespace planloop::analysis {
namespace {

std::string_view last_part(std::string_view path) {
    return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

std::string demangled(const char *name) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void *)> plain(abi::__cxa_demangle(name, nullptr, nullptr, &status), ::free);
    return status == 0 && plain != nullptr ? plain.get() : name;
}

// libdwfl's own search also asks the servers that $DEBUGINFOD_URLS names; with that set, only the search by build-id,
// which does not, is made.
int find_debug_file(Dwfl_Module *module, void **data, const char *name, Dwarf_Addr base, const char *file,
                    const char *link, GElf_Word checksum, char **found) {
    const char *servers = ::getenv("DEBUGINFOD_URLS");  // NOLINT(concurrency-mt-unsafe): nobody sets it meanwhile
    const bool local = servers == nullptr || *servers == '\0';
    return (local ? dwfl_standard_find_debuginfo : dwfl_build_id_find_debuginfo)(module, data, name, base, file, link,
                                                                                 checksum, found);
}

std::string linkage_name(Dwarf_Die &die) {
    for (const unsigned name : {unsigned{DW_AT_linkage_name}, unsigned{DW_AT_MIPS_linkage_name}}) {
        Dwarf_Attribute attribute;
        const char *text = dwarf_formstring(dwarf_attr_integrate(&die, name, &attribute));
        if (text != nullptr) return demangled(text);
    }
    const char *plain = dwarf_diename(&die);
    return plain != nullptr ? plain : "";
}

bool is_of_the_system(std::string_view file) {
    return file.substr(0, 13) == "/usr/include/" || file.substr(0, 9) == "/usr/lib/";
}

}  // namespace

std::string call_site_words(const CallSite &site) {
    if (!site.known()) return "?";
    // A C++ name tells its parameters too; a C function's name has no parentheses.
    std::string function = site.function;
    if (!function.empty() && function.find('(') == std::string::npos) function += "()";
    if (!site.file.empty() && site.line != 0) {
        return fmt::format("{}{}{}:{}", function, function.empty() ? "" : " at ", last_part(site.file), site.line);
    }
    std::string words =
        fmt::format("{}{}{}+{:#x}", function, function.empty() ? "" : " in ", last_part(site.module), site.offset);
    if (!site.remark.empty()) words += fmt::format(" ({})", site.remark);
    return words;
}

// A file that libdw has open, if it is the one that was recorded.
class CallSiteNames::Module {
  public:
    Module(const CodeModule &module, const std::string &debug_folder) : debug_path_(debug_folder) {
        if (module.path.empty() || ::access(module.path.c_str(), R_OK) != 0) {
            remark_ = "the file is not there";
        } else if (!open(module.path, module.build_id)) {
            remark_ = "the file was replaced since";
        } else {
            return;
        }
        // Its debug information may be at hand all the same.
        if (module.build_id.size() < 2) return;
        std::string id;
        for (const char byte : module.build_id) id += fmt::format("{:02x}", static_cast<unsigned char>(byte));
        const std::string path = fmt::format("{}/.build-id/{}/{}.debug", debug_folder, id.substr(0, 2), id.substr(2));
        if (::access(path.c_str(), R_OK) == 0 && open(path, module.build_id)) remark_.clear();
    }
    ~Module() {
        if (dwfl_ != nullptr) dwfl_end(dwfl_);
    }
    Module(const Module &) = delete;
    Module &operator=(const Module &) = delete;

    void describe(CallSite &site) {
        site.remark = remark_;
        if (module_ == nullptr) return;
        find_symbol(site);
        find_line(site);
        if (site.function.empty() && site.file.empty()) site.remark = "no symbols";
    }

  private:
    bool open(const std::string &path, const std::string &build_id) {
        if (dwfl_ != nullptr) dwfl_end(dwfl_);
        dwfl_ = dwfl_begin(&callbacks_);
        if (dwfl_ == nullptr) return false;
        dwfl_report_begin(dwfl_);
        constexpr GElf_Addr kAtItsOwnAddresses = 0;
        module_ = dwfl_report_elf(dwfl_, "module", path.c_str(), -1, kAtItsOwnAddresses, true);
        dwfl_report_end(dwfl_, nullptr, nullptr);
        if (module_ == nullptr) return false;
        GElf_Addr bias = 0;
        dwfl_module_getelf(module_, &bias);  // reads the notes
        const unsigned char *bits = nullptr;
        GElf_Addr at = 0;
        const int length = dwfl_module_build_id(module_, &bits, &at);
        const std::string_view found(reinterpret_cast<const char *>(bits),
                                     length > 0 ? static_cast<std::size_t>(length) : 0);
        // Of a long one only the first bytes are recorded.
        if (found.substr(0, build_id.size()) == build_id && build_id.empty() == found.empty()) return true;
        module_ = nullptr;
        return false;
    }

    void find_symbol(CallSite &site) {
        GElf_Off into = 0;
        GElf_Sym symbol{};
        const char *name = dwfl_module_addrinfo(module_, site.offset, &into, &symbol, nullptr, nullptr, nullptr);
        // Without a size it is just the last symbol before the address, of a stripped file perhaps far before.
        if (name != nullptr && symbol.st_size != 0 && into < symbol.st_size) site.function = demangled(name);
    }

    void find_line(CallSite &site) {
        Dwfl_Line *line = dwfl_module_getsrc(module_, site.offset);
        int number = 0;
        const char *file = line != nullptr ? dwfl_lineinfo(line, nullptr, &number, nullptr, nullptr, nullptr) : nullptr;
        if (file == nullptr || number <= 0) return;
        site.file = file;
        site.line = static_cast<std::uint32_t>(number);
        leave_headers(site);
    }

    // From the innermost function outwards, past those that came inlined out of a system header.
    void leave_headers(CallSite &site) {
        Dwarf_Addr bias = 0;
        Dwarf_Die *unit = dwfl_module_addrdie(module_, site.offset, &bias);
        if (unit == nullptr) return;
        Dwarf_Die *found = nullptr;
        const int count = dwarf_getscopes(unit, site.offset - bias, &found);
        const std::unique_ptr<Dwarf_Die, void (*)(void *)> scopes(found, ::free);
        Dwarf_Files *files = nullptr;
        std::size_t file_count = 0;
        if (count <= 0 || dwarf_getsrcfiles(unit, &files, &file_count) != 0) return;
        const std::string symbol = site.function;
        for (int i = 0; i < count; ++i) {
            Dwarf_Die &scope = scopes.get()[i];
            const int tag = dwarf_tag(&scope);
            if (tag != DW_TAG_inlined_subroutine && tag != DW_TAG_subprogram) continue;
            // A symbol says more than the name of a function that is local to its file.
            const bool has_symbol = tag == DW_TAG_subprogram && !symbol.empty();
            if (std::string name = has_symbol ? symbol : linkage_name(scope); !name.empty()) site.function = name;
            if (tag == DW_TAG_subprogram || !is_of_the_system(site.file)) return;
            Dwarf_Attribute attribute;
            Dwarf_Word file = 0;
            Dwarf_Word line = 0;
            if (dwarf_formudata(dwarf_attr(&scope, DW_AT_call_file, &attribute), &file) != 0 ||
                dwarf_formudata(dwarf_attr(&scope, DW_AT_call_line, &attribute), &line) != 0) {
                return;
            }
            const char *name = dwarf_filesrc(files, file, nullptr, nullptr);
            if (name == nullptr) return;
            site.file = name;
            site.line = static_cast<std::uint32_t>(line);
        }
    }

    std::string debug_path_;
    char *debug_path_for_dwfl_ = debug_path_.data();
    Dwfl_Callbacks callbacks_ = {dwfl_build_id_find_elf, find_debug_file, dwfl_offline_section_address,
                                 &debug_path_for_dwfl_};
    Dwfl *dwfl_ = nullptr;
    Dwfl_Module *module_ = nullptr;
    std::string remark_;
};

CallSiteNames::CallSiteNames(std::string debug_folder) : debug_folder_(std::move(debug_folder)) {}
CallSiteNames::~CallSiteNames() = default;

CallSite CallSiteNames::look_up(const CodeModule &module, std::uint64_t offset) {
    CallSite site;
    site.module = module.path;
    site.offset = offset;
    std::unique_ptr<Module> &known = modules_[{module.path, module.build_id}];
    if (known == nullptr) known = std::make_unique<Module>(module, debug_folder_);
    known->describe(site);
    return site;
}

}  // namespace planloop::analysis
