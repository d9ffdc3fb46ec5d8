#include "lockcore/stack_trace.h"

#include <cxxabi.h>
#include <unwind.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <utility>

#include "lockcore/frame_namer.h"

namespace planloop {
namespace {

struct Walk {
    std::array<std::uintptr_t, StackTrace::kMostFrames> *addresses;
    std::size_t count;
    std::uintptr_t from;
    bool begun;
};

_Unwind_Reason_Code step(_Unwind_Context *context, void *argument) {
    Walk &walk = *static_cast<Walk *>(argument);
    const auto address = static_cast<std::uintptr_t>(_Unwind_GetIP(context));
    if (address == 0) return _URC_END_OF_STACK;
    walk.begun = walk.begun || address == walk.from;
    if (!walk.begun) return _URC_NO_REASON;
    (*walk.addresses)[walk.count++] = address;
    return walk.count == walk.addresses->size() ? _URC_END_OF_STACK : _URC_NO_REASON;
}

}  // namespace

StackTrace StackTrace::take(const void *from) noexcept {
    StackTrace trace;
    Walk walk{&trace.addresses_, 0, reinterpret_cast<std::uintptr_t>(from), from == nullptr};
    _Unwind_Backtrace(step, &walk);
    if (!walk.begun) {
        walk = {&trace.addresses_, 0, 0, true};
        _Unwind_Backtrace(step, &walk);
    }
    trace.count_ = walk.count;
    return trace;
}

std::vector<StackFrame> name_frames(std::span<const std::uintptr_t> addresses) {
    static std::mutex mutex;
    const std::lock_guard guard(mutex);
    const FrameNamer namer = FrameNamer::of_this_process();
    std::vector<StackFrame> frames;
    for (const std::uintptr_t address : addresses) {
        for (StackFrame &frame : namer.name(address, true)) frames.push_back(std::move(frame));
    }
    return frames;
}

std::string demangled(const char *mangled) {
    int status = 0;
    const std::unique_ptr<char, void (*)(void *)> text(abi::__cxa_demangle(mangled, nullptr, nullptr, &status),
                                                       std::free);
    return status == 0 && text != nullptr ? text.get() : mangled;
}

}  // namespace planloop
