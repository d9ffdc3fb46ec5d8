#include "lockcore/traced_lock.h"

#include <boost/interprocess/exceptions.hpp>
#include <cerrno>
#include <exception>
#include <system_error>

namespace planloop::recording {

int current_errno() noexcept {
    if (!std::current_exception()) return 0;  // no C++ exception: the thread is being cancelled
    try {
        throw;
    } catch (const std::system_error &error) {
        return error.code().value() != 0 ? error.code().value() : EIO;
    } catch (const boost::interprocess::interprocess_exception &error) {
        return error.get_native_error() != 0 ? error.get_native_error() : EIO;
    } catch (...) {
        return EIO;
    }
}

__attribute__((noinline)) const void *here() noexcept {
    return __builtin_return_address(0);
}

}  // namespace planloop::recording
