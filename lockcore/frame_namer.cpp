#include "lockcore/frame_namer.h"

#include <dwarf.h>
#include <elfutils/libdw.h>
#include <elfutils/libdwfl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string_view>
#include <utility>

namespace planloop {
namespace {

// By build-id alone: dwfl_standard_find_debuginfo() would go on to the network.
int find_debuginfo(Dwfl_Module *module, void **user, const char *name, Dwarf_Addr base, const char *file,
                   const char *link, GElf_Word crc, char **found) {
    static_cast<void>(link);
    static_cast<void>(crc);
    return dwfl_build_id_find_debuginfo(module, user, name, base, file, nullptr, 0, found);
}

char *debug_folders = nullptr;  // nullptr: elfutils' own list, :.debug:/usr/lib/debug
const Dwfl_Callbacks kCallbacks{dwfl_linux_proc_find_elf, find_debuginfo, nullptr, &debug_folders};

std::string name_of(Dwarf_Die *die) {
    Dwarf_Attribute memory;
    for (const unsigned attribute : {unsigned{DW_AT_linkage_name}, unsigned{DW_AT_MIPS_linkage_name}}) {
        if (Dwarf_Attribute *found = dwarf_attr_integrate(die, attribute, &memory); found != nullptr) {
            if (const char *text = dwarf_formstring(found); text != nullptr) return demangled(text);
        }
    }
    const char *text = dwarf_diename(die);
    return text == nullptr ? "" : text;
}

bool is_function(Dwarf_Die *die) {
    const int tag = dwarf_tag(die);
    return tag == DW_TAG_subprogram || tag == DW_TAG_inlined_subroutine || tag == DW_TAG_entry_point;
}

int number_of(Dwarf_Die *die, unsigned attribute) {
    Dwarf_Attribute memory;
    Dwarf_Word value = 0;
    if (dwarf_formudata(dwarf_attr(die, attribute, &memory), &value) != 0) return 0;
    return static_cast<int>(value);
}

std::string absolute_path(const char *path, const char *folder) {
    if (path == nullptr) return {};
    const std::filesystem::path file(path);
    if (file.is_absolute() || folder == nullptr) return file.lexically_normal().string();
    return (std::filesystem::path(folder) / file).lexically_normal().string();
}

// The line of a source that is no newer than the program made of it.
std::string source_line(const std::string &file, int line, const std::string &module) {
    constexpr int kMostLines = 1'000'000;
    struct stat source {
    }, program{};
    if (file.empty() || line <= 0 || line > kMostLines || ::stat(file.c_str(), &source) != 0) return {};
    if (!S_ISREG(source.st_mode)) return {};
    if (::stat(module.c_str(), &program) == 0 && source.st_mtim.tv_sec > program.st_mtim.tv_sec) return {};
    std::ifstream in(file);
    std::string text;
    for (int i = 0; i < line; ++i) {
        if (!std::getline(in, text)) return {};
    }
    text.erase(0, std::min(text.find_first_not_of(" \t"), text.size()));
    while (!text.empty() && (text.back() == '\r' || text.back() == ' ')) text.pop_back();
    return text;
}

// The functions that are one inside the other at an address.
class Scopes {
  public:
    Scopes(Dwfl_Module *module, Dwarf_Addr pc) {
        Dwarf_Addr bias = 0;
        Dwarf_Die *unit = dwfl_module_addrdie(module, pc, &bias);
        if (unit == nullptr) return;
        Dwarf_Die *at = nullptr;
        if (dwarf_getscopes(unit, pc - bias, &at) <= 0) return;
        // The scopes of that DIE, not of its abstract origin: these tell where it was inlined.
        Dwarf_Die innermost;
        Dwarf_Die *const found = dwarf_offdie(dwfl_module_getdwarf(module, &bias), dwarf_dieoffset(&at[0]), &innermost);
        std::free(at);
        if (found == nullptr) return;
        count_ = std::max(dwarf_getscopes_die(&innermost, &scopes_), 0);
    }
    ~Scopes() { std::free(scopes_); }
    Scopes(const Scopes &) = delete;
    Scopes &operator=(const Scopes &) = delete;

    std::vector<Dwarf_Die *> functions() {
        std::vector<Dwarf_Die *> found;
        for (int i = 0; i < count_; ++i) {
            if (is_function(&scopes_[i])) found.push_back(&scopes_[i]);
            if (dwarf_tag(&scopes_[i]) == DW_TAG_subprogram) break;
        }
        return found;
    }

  private:
    Dwarf_Die *scopes_ = nullptr;
    int count_ = 0;
};

// Where the function that is described by `die` was inlined.
void set_call_place(StackFrame &frame, Dwarf_Die *die) {
    Dwarf_Die unit;
    Dwarf_Files *files = nullptr;
    std::size_t count = 0;
    if (dwarf_diecu(die, &unit, nullptr, nullptr) == nullptr || dwarf_getsrcfiles(&unit, &files, &count) != 0) return;
    const int file = number_of(die, DW_AT_call_file);
    frame.line = number_of(die, DW_AT_call_line);
    if (file <= 0 || static_cast<std::size_t>(file) >= count) return;
    const char *const *folders = nullptr;
    std::size_t folder_count = 0;
    dwarf_getsrcdirs(files, &folders, &folder_count);
    frame.file = absolute_path(dwarf_filesrc(files, static_cast<std::size_t>(file), nullptr, nullptr),
                               folder_count > 0 ? folders[0] : nullptr);
}

// maps(5) lines whose file is the one that was mapped: not changed after `utc_ns`.
std::string unchanged_lines(const std::string &maps, std::int64_t utc_ns) {
    std::istringstream in(maps);
    std::string out;
    std::string line;
    while (std::getline(in, line)) {
        const std::size_t path = line.find('/');
        struct stat status {};
        if (path != std::string::npos) {
            if (::stat(line.c_str() + path, &status) != 0) continue;
            if (std::int64_t{status.st_ctim.tv_sec} > utc_ns / 1'000'000'000) continue;
        }
        out += line;
        out += '\n';
    }
    return out;
}

struct DeadThread {
    const wire::CrashRegisters &registers;
    std::uint64_t stack_begin;
    std::span<const std::byte> stack;
};

const Dwfl_Thread_Callbacks kDeadThread{
    [](Dwfl *, void *argument, void **thread_argument) -> pid_t {
        if (*thread_argument != nullptr) return 0;  // there is one
        *thread_argument = argument;
        return 1;
    },
    [](Dwfl *, pid_t, void *argument, void **thread_argument) {
        *thread_argument = argument;
        return true;
    },
    [](Dwfl *, Dwarf_Addr address, Dwarf_Word *result, void *argument) {
        const auto &dead = *static_cast<const DeadThread *>(argument);
        if (address < dead.stack_begin || dead.stack.size() < sizeof(*result) ||
            address - dead.stack_begin > dead.stack.size() - sizeof(*result)) {
            return false;
        }
        std::memcpy(result, dead.stack.data() + (address - dead.stack_begin), sizeof(*result));
        return true;
    },
    [](Dwfl_Thread *thread, void *argument) {
        const auto &dead = *static_cast<const DeadThread *>(argument);
        Dwarf_Word values[wire::kCrashRegisterCount];
        std::copy(std::begin(dead.registers.values), std::end(dead.registers.values), values);
        dwfl_thread_state_register_pc(thread, dead.registers.program_counter());
#if defined(__aarch64__)
        constexpr unsigned kCount = wire::kCrashRegisterCount - 1;
#else
        constexpr unsigned kCount = wire::kCrashRegisterCount;
#endif
        return dwfl_thread_state_registers(thread, 0, kCount, values);
    },
    nullptr,
    nullptr};

}  // namespace

void FrameNamer::End::operator()(Dwfl *dwfl) const noexcept {
    dwfl_end(dwfl);
}

FrameNamer FrameNamer::of_this_process() {
    FrameNamer namer(dwfl_begin(&kCallbacks));
    if (namer.dwfl_ != nullptr) {
        dwfl_linux_proc_report(namer.dwfl_.get(), ::getpid());
        dwfl_report_end(namer.dwfl_.get(), nullptr, nullptr);
    }
    return namer;
}

FrameNamer FrameNamer::of_maps(const std::string &maps, std::int64_t utc_ns) {
    FrameNamer namer(dwfl_begin(&kCallbacks));
    std::string lines = unchanged_lines(maps, utc_ns);
    std::FILE *file = lines.empty() ? nullptr : ::fmemopen(lines.data(), lines.size(), "r");
    if (namer.dwfl_ != nullptr && file != nullptr) {
        dwfl_linux_proc_maps_report(namer.dwfl_.get(), file);
        dwfl_report_end(namer.dwfl_.get(), nullptr, nullptr);
    }
    if (file != nullptr) static_cast<void>(std::fclose(file));
    return namer;
}

std::vector<StackFrame> FrameNamer::name(std::uint64_t address, bool is_return_address) const {
    std::vector<StackFrame> frames(1);
    StackFrame &innermost = frames.front();  // until there are more
    innermost.address = address;
    const Dwarf_Addr pc = is_return_address && address > 0 ? address - 1 : address;
    Dwfl_Module *module = dwfl_ == nullptr ? nullptr : dwfl_addrmodule(dwfl_.get(), pc);
    if (module == nullptr) return frames;

    Dwarf_Addr start = 0;
    const char *main_file = nullptr;
    const char *module_name = dwfl_module_info(module, nullptr, &start, nullptr, nullptr, nullptr, &main_file, nullptr);
    innermost.module = main_file != nullptr ? main_file : module_name != nullptr ? module_name : "";
    GElf_Addr bias = start;
    if (dwfl_module_getelf(module, &bias) == nullptr) bias = start;
    innermost.offset = address - bias;
    GElf_Off offset = 0;
    GElf_Sym symbol;
    if (const char *text = dwfl_module_addrinfo(module, pc, &offset, &symbol, nullptr, nullptr, nullptr)) {
        innermost.function = demangled(text);
    }
    if (Dwfl_Line *line = dwfl_module_getsrc(module, pc); line != nullptr) {
        const char *path = dwfl_lineinfo(line, nullptr, &innermost.line, nullptr, nullptr, nullptr);
        innermost.file = absolute_path(path, dwfl_line_comp_dir(line));
    }
    Scopes scopes(module, pc);
    const std::vector<Dwarf_Die *> functions = scopes.functions();
    if (functions.empty()) {  // the line is that of other code before it
        innermost.file.clear();
        innermost.line = 0;
    }
    for (std::size_t i = 0; i < functions.size(); ++i) {
        if (const std::string name = name_of(functions[i]); !name.empty()) frames.back().function = name;
        if (i + 1 == functions.size() || dwarf_tag(functions[i]) != DW_TAG_inlined_subroutine) break;
        frames.back().inlined = true;
        StackFrame around;
        around.address = address;
        around.module = frames.front().module;
        around.offset = frames.front().offset;
        set_call_place(around, functions[i]);
        frames.push_back(std::move(around));
    }
    for (StackFrame &frame : frames) frame.code = source_line(frame.file, frame.line, frame.module);
    return frames;
}

std::vector<std::uint64_t> FrameNamer::unwind(const wire::CrashRegisters &registers, std::uint64_t stack_begin,
                                              std::span<const std::byte> stack) const {
    std::vector<std::uint64_t> addresses{registers.program_counter()};
    if (dwfl_ == nullptr) return addresses;
    DeadThread dead{registers, stack_begin, stack};
    std::vector<std::uint64_t> walked;
    if (!dwfl_attach_state(dwfl_.get(), nullptr, 1, &kDeadThread, &dead)) return addresses;
    dwfl_getthread_frames(
        dwfl_.get(), 1,
        [](Dwfl_Frame *frame, void *argument) {
            auto &found = *static_cast<std::vector<std::uint64_t> *>(argument);
            Dwarf_Addr pc = 0;
            if (!dwfl_frame_pc(frame, &pc, nullptr) || found.size() == StackTrace::kMostFrames) return 1;
            found.push_back(pc);
            return 0;
        },
        &walked);
    return walked.empty() ? addresses : walked;
}

}  // namespace planloop
