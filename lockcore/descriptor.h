// A file descriptor that is closed with its scope; below 0 there is none. Threads: as an int.
#ifndef PLANLOOP_LOCKCORE_DESCRIPTOR_H
#define PLANLOOP_LOCKCORE_DESCRIPTOR_H

#include <unistd.h>

#include <utility>

namespace planloop {

class Descriptor {
  public:
    Descriptor() = default;
    explicit Descriptor(int fd) : fd_(fd) {}
    Descriptor(Descriptor &&other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
    Descriptor &operator=(Descriptor &&other) noexcept {
        std::swap(fd_, other.fd_);
        return *this;
    }
    Descriptor(const Descriptor &) = delete;
    Descriptor &operator=(const Descriptor &) = delete;
    ~Descriptor() {
        if (fd_ >= 0) ::close(fd_);
    }

    int get() const noexcept { return fd_; }

  private:
    int fd_ = -1;
};

}  // namespace planloop

#endif
