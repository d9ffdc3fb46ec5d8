// What a file or a kernel can do to us is a value, not an exception: Result<T> holds a T or an Error.
// The command line turns an Error into one line and an exit status, in one place.
#ifndef PLANLOOP_LOCKCORE_RESULT_H
#define PLANLOOP_LOCKCORE_RESULT_H

#include <string>
#include <utility>
#include <variant>

namespace planloop {

struct Error {
    std::string message;  // one line, no full stop, names the file or id it is about
};

template <class T>
class [[nodiscard]] Result {
  public:
    Result(T value) : value_(std::move(value)) {}      // NOLINT(google-explicit-constructor): reads as a return
    Result(Error error) : value_(std::move(error)) {}  // NOLINT(google-explicit-constructor)

    explicit operator bool() const noexcept { return value_.index() == 0; }
    T &operator*() { return std::get<0>(value_); }
    const T &operator*() const { return std::get<0>(value_); }
    T *operator->() { return &std::get<0>(value_); }
    const T *operator->() const { return &std::get<0>(value_); }
    const Error &error() const { return std::get<1>(value_); }

  private:
    std::variant<T, Error> value_;
};

template <>
class [[nodiscard]] Result<void> {
  public:
    Result() = default;
    Result(Error error) : error_(std::move(error)), failed_(true) {}  // NOLINT(google-explicit-constructor)

    explicit operator bool() const noexcept { return !failed_; }
    const Error &error() const { return error_; }

  private:
    Error error_;
    bool failed_ = false;
};

}  // namespace planloop

#endif
