// A lock file of its own for each test of FileLock, and other processes' view of it.
#ifndef PLANLOOP_TESTS_SUPPORT_FILE_LOCK_FIXTURE_H
#define PLANLOOP_TESTS_SUPPORT_FILE_LOCK_FIXTURE_H

#include <gtest/gtest.h>

#include <memory>
#include <stdexcept>
#include <string>

#include "lockcore/file_lock.h"
#include "tests/support/child_process.h"

namespace planloop::testing {

class FileLockTest : public ::testing::Test {
  protected:
    // Whether another process, a new one, can get the lock now.
    bool free_for_others(bool shared = false) const {
        Child other([&](Line &) {
            FileLock lock(path_);
            return (shared ? lock.try_lock_shared() : lock.try_lock()) ? 1 : 0;
        });
        return other.status() == 1;
    }
    // A process that has the lock until it is told to give it back, and lives on until it is told to end.
    std::unique_ptr<Child> holder() const {
        auto child = std::make_unique<Child>([this](Line &line) {
            FileLock lock(path_);
            lock.lock();
            line.tell('h');
            line.hear();
            lock.unlock();
            line.tell('u');
            line.hear();
            return 0;
        });
        if (child->hear() != 'h') throw std::runtime_error("the holder has no lock");
        return child;
    }

    TemporaryFolder folder_;
    std::string path_ = folder_.file("lock");
};

}  // namespace planloop::testing

#endif
