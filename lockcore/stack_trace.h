// A stack, as addresses when it is taken and as functions, files and lines when somebody wants to read it.
//
// Taking one costs a microsecond or so a frame and allocates nothing; naming it opens every module's debug information
// (libdw) and costs milliseconds to tenths of a second, so it is done for errors, once, where the exception arrives.
// Inlined calls are frames of their own. A program without debug information gets functions from its symbol table; a
// stripped one module and offset.
//
// Errors: what is not known is left empty or 0. Threads: safe. Signals: take() is in practice (it walks by
// _Unwind_Backtrace) but promises nothing; for signals there is crash_capture.h.
#ifndef PLANLOOP_LOCKCORE_STACK_TRACE_H
#define PLANLOOP_LOCKCORE_STACK_TRACE_H

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace planloop {

struct StackFrame {
    std::string function;  // demangled; empty: unknown
    std::string file;      // as the compiler was told, made absolute where it says its folder
    int line = 0;          // 0: unknown
    std::string code;      // that line, where the file can be read and is not newer than the program
    std::string module;    // path of the program or library
    std::uint64_t address = 0;
    std::uint64_t offset = 0;  // in the module, as its symbols count
    bool inlined = false;      // into the frame behind it
};

class StackTrace {
  public:
    static constexpr std::size_t kMostFrames = 128;

    // From the frame that `from` returns into (__builtin_return_address(0)); nullptr, or no such frame: all of them.
    static StackTrace take(const void *from = nullptr) noexcept;

    std::span<const std::uintptr_t> addresses() const noexcept { return {addresses_.data(), count_}; }

  private:
    std::array<std::uintptr_t, kMostFrames> addresses_{};
    std::size_t count_ = 0;
};

// Innermost first. Addresses behind a call (all but a fault's) name the call.
std::vector<StackFrame> name_frames(std::span<const std::uintptr_t> addresses);

// `planloop::Error` of `N8planloop5ErrorE`.
std::string demangled(const char *mangled);

}  // namespace planloop

#endif
