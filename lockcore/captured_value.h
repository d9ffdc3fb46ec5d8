// Values that an error report shall show: local variables that the code names.
//
//   void apply(const Task &task) {
//       PLANLOOP_CAPTURE(task.id);
//       const int attempt = 2; PLANLOOP_CAPTURE(attempt);   // as it is when something is thrown, not as it is now
//
// The variable is borrowed until the scope ends and read when an exception is thrown while an error context is open
// (error_context.h), on the throwing thread, before anything is unwound. Costs two stores.
//
// Shown are numbers, texts, true and false, enumerations by number, optionals, pointers, ranges of such values (the
// first 16), and whatever has an operator<<; anything else by its type and size. At most 200 bytes, redacted by name
// and by shape (redact.h).
//
// Threads: each has its own values. Signals: not async-signal-safe. Errors: a value whose operator<< throws is shown as
// such.
#ifndef PLANLOOP_LOCKCORE_CAPTURED_VALUE_H
#define PLANLOOP_LOCKCORE_CAPTURED_VALUE_H

#include <cstddef>
#include <cstdint>
#include <iterator>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <typeinfo>
#include <vector>

namespace planloop {

namespace capture {

std::string opaque_text(const std::type_info &type, std::size_t bytes);  // "<std::mutex, 40 bytes>"

template <class T>
concept Streamable = requires(std::ostream &out, const T &value) {
    out << value;
};
template <class T>
concept Range = requires(const T &value) {
    std::begin(value);
    std::end(value);
};
template <class T>
concept Optional = requires(const T &value) {
    value.has_value();
    *value;
};

inline constexpr std::size_t kMostElements = 16;

template <class T>
std::string text_of(const T &value) {
    if constexpr (std::is_same_v<T, bool>) {
        return value ? "true" : "false";
    } else if constexpr (std::is_same_v<T, std::int8_t> || std::is_same_v<T, std::uint8_t>) {
        return std::to_string(value);
    } else if constexpr (std::is_convertible_v<const T &, const char *>) {
        const char *text = value;
        return text == nullptr ? "(null)" : text;
    } else if constexpr (std::is_convertible_v<const T &, std::string_view>) {
        return std::string(std::string_view(value).substr(0, std::size_t{4} << 10));
    } else if constexpr (std::is_enum_v<T>) {
        return std::to_string(static_cast<std::int64_t>(value));
    } else if constexpr (Streamable<T>) {
        std::ostringstream out;
        out << value;
        return std::move(out).str();
    } else if constexpr (Optional<T>) {
        return value.has_value() ? text_of(*value) : "(none)";
    } else if constexpr (Range<T>) {
        std::string out = "[";
        std::size_t count = 0;
        for (const auto &element : value) {
            if (count == kMostElements) {
                out += ", ...";
                break;
            }
            if (count++ != 0) out += ", ";
            out += text_of(element);
        }
        return out + ']';
    } else {
        return opaque_text(typeid(T), sizeof(T));
    }
}

// One scope's registration, in a list that the thread owns; innermost first.
class Registration {
  public:
    Registration(const char *name, const char *function, int line, const void *value,
                 std::string (*text)(const void *)) noexcept;
    ~Registration();
    Registration(const Registration &) = delete;
    Registration &operator=(const Registration &) = delete;

  private:
    friend struct Reader;
    const char *name_, *function_;
    int line_;
    const void *value_;
    std::string (*text_)(const void *);
    const Registration *outer_;
};

template <class T>
std::string text_at(const void *value) {
    return text_of(*static_cast<const T *>(value));
}

}  // namespace capture

struct CapturedValue {
    std::string name, value, function;
    int line = 0;
};
// Of the calling thread, innermost scope first, redacted and shortened. Never throws; what there is no memory for is
// left out.
std::vector<CapturedValue> captured_values() noexcept;

}  // namespace planloop

#define PLANLOOP_JOIN_INNER(a, b) a##b
#define PLANLOOP_JOIN(a, b) PLANLOOP_JOIN_INNER(a, b)
#define PLANLOOP_CAPTURE(variable)                                                          \
    const ::planloop::capture::Registration PLANLOOP_JOIN(planloop_captured_, __COUNTER__)( \
        #variable, __func__, __LINE__, &(variable),                                         \
        &::planloop::capture::text_at<std::remove_cv_t<std::remove_reference_t<decltype(variable)>>>)

#endif
