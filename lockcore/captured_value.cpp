#include "lockcore/captured_value.h"

#include <fmt/format.h>

#include <exception>

#include "lockcore/redact.h"
#include "lockcore/stack_trace.h"

namespace planloop {
namespace capture {
namespace {

constinit thread_local const Registration *innermost = nullptr;

}  // namespace

std::string opaque_text(const std::type_info &type, std::size_t bytes) {
    return fmt::format("<{}, {} bytes>", demangled(type.name()), bytes);
}

Registration::Registration(const char *name, const char *function, int line, const void *value,
                           std::string (*text)(const void *)) noexcept
    : name_(name), function_(function), line_(line), value_(value), text_(text), outer_(innermost) {
    innermost = this;
}

Registration::~Registration() {
    innermost = outer_;
}

struct Reader {
    static CapturedValue read(const Registration &one) {
        CapturedValue captured;
        captured.name = one.name_;
        captured.function = one.function_;
        captured.line = one.line_;
        try {
            captured.value = shortened(redacted(captured.name, one.text_(one.value_)));
        } catch (const std::exception &error) {
            captured.value = fmt::format("<could not be read: {}>", shortened(redacted(error.what())));
        }
        return captured;
    }
    static std::vector<CapturedValue> read_all() {
        std::vector<CapturedValue> values;
        for (const Registration *one = innermost; one != nullptr; one = one->outer_) values.push_back(read(*one));
        return values;
    }
};

}  // namespace capture

std::vector<CapturedValue> captured_values() noexcept {
    try {
        return capture::Reader::read_all();
    } catch (...) {  // whatever an operator<< throws must not get out of somebody else's throw
        return {};
    }
}

}  // namespace planloop
