#include "lockcore/throw_trace.h"

#include <cxxabi.h>
#include <fmt/format.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <mutex>
#include <utility>

#include "lockcore/clock.h"
#include "lockcore/span_of_thread.h"

namespace planloop {
namespace {

constexpr std::size_t kRemembered = 64;

constinit std::atomic<int> watches{0};

// The last throws of all threads, the newest at `next - 1`.
std::mutex remembered_mutex;
std::array<ThrowMomentPointer, kRemembered> remembered;
std::size_t remembered_next = 0;

template <class Fits>
ThrowMomentPointer newest(Fits fits) {
    const std::lock_guard guard(remembered_mutex);
    for (std::size_t i = 0; i < kRemembered; ++i) {
        const ThrowMomentPointer &moment = remembered[(remembered_next + kRemembered - 1 - i) % kRemembered];
        if (moment != nullptr && fits(*moment)) return moment;
    }
    return nullptr;
}

std::shared_ptr<ThrowMoment> look_around(const void *from) {
    auto made = std::make_shared<ThrowMoment>();
    ThrowMoment &moment = *made;
    moment.stack = StackTrace::take(from);
    moment.utc_ns = utc_now_ns();
    moment.tid = ::gettid();
    moment.values = captured_values();
    moment.locks = locks_of_thread();
    const recording::SpanOfThread &here = recording::span_of_thread;
    if (here.journal != nullptr) moment.spans = here.journal->recent(here.span);
    return made;
}

void look(void *object, const std::type_info *type, const void *from) {
    auto moment = look_around(from);
    moment->type = type;
    moment->object = object;
    moment->seen_at_throw = true;
    moment->under_way = std::uncaught_exceptions();
    const std::lock_guard guard(remembered_mutex);
    remembered[remembered_next++ % kRemembered] = std::move(moment);
}

bool tell_exception_under_way(std::string &text) {
    const ThrowMomentPointer moment = moment_under_way();
    if (moment == nullptr || moment->type == nullptr) return false;
    text = demangled(moment->type->name());
    if (const std::exception *standard = as_standard(*moment->type, moment->object)) {
        text += fmt::format(": {}", standard->what());
    }
    return true;
}

void note_throw(void *object, const std::type_info *type, const void *from) noexcept {
    if (__builtin_expect(watches.load(std::memory_order_relaxed) == 0, 1)) return;
    thread_local bool looking = false;
    if (std::exchange(looking, true)) return;  // thrown, and caught, by our own looking
    try {
        look(object, type, from);
    } catch (...) {  // no memory: thrown without a trace
    }
    looking = false;
}

// Who links this wants to know which locks are held where something is thrown, also those taken long before.
// All are initialised before any code runs (constinit).
[[maybe_unused]] const bool kAnnounced = [] {  // NOLINT(cppcoreguidelines-interfaces-global-init)
    recording::lock_watchers.fetch_add(1, std::memory_order_relaxed);
    recording::tells_exception.store(tell_exception_under_way, std::memory_order_relaxed);
    recording::sees_throws.store(note_throw, std::memory_order_relaxed);
    return true;
}();

}  // namespace

ThrowWatch::ThrowWatch() noexcept {
    watches.fetch_add(1, std::memory_order_relaxed);
}

ThrowWatch::~ThrowWatch() {
    watches.fetch_sub(1, std::memory_order_relaxed);
}

ThrowMomentPointer present_moment(const void *from) {
    return look_around(from);
}

void *object_of(const std::exception_ptr &exception) noexcept {
    // libstdc++ and libc++ both: a pointer to the object and nothing else.
    static_assert(sizeof(std::exception_ptr) == sizeof(void *));
    void *object = nullptr;
    std::memcpy(&object, static_cast<const void *>(&exception), sizeof(object));
    return object;
}

ThrowMomentPointer moment_of(const std::exception_ptr &exception) noexcept {
    void *const object = object_of(exception);
    if (object == nullptr) return nullptr;
    // An object may lie where an earlier one lay: the newest throw counts, if it was of this type.
    ThrowMomentPointer moment = newest([object](const ThrowMoment &each) { return each.object == object; });
    if (moment != nullptr && *moment->type != *exception.__cxa_exception_type()) return nullptr;
    return moment;
}

ThrowMomentPointer moment_under_way() noexcept {
    const int tid = ::gettid();
    const int before = std::uncaught_exceptions() - 1;
    return newest([=](const ThrowMoment &each) { return each.tid == tid && each.under_way == before; });
}

const std::exception *as_standard(const std::type_info &type, void *object) noexcept {
    // What a catch clause does, Itanium C++ ABI: Exception Handling, 2.4.1.
    return typeid(std::exception).__do_catch(&type, &object, 1) ? static_cast<const std::exception *>(object) : nullptr;
}

}  // namespace planloop
