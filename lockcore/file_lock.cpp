#include "lockcore/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <map>
#include <mutex>
#include <system_error>
#include <utility>
#include <vector>

#include "lockcore/kernel_lock.h"
#include "lockcore/process_gate.h"
#include "lockcore/recorder.h"

namespace planloop {
namespace {

using recording::Call;
using recording::LockName;
using wire::Mode;

std::system_error lock_error(int error, const std::string &path) {
    std::string what = fmt::format("cannot lock {}", printable(path));
    if (error == EDEADLK) {
        what += ": it would never end, its holders wait for a lock of this process or thread";
    } else if (error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL) {
        what += ": its file system has no locks, or none left";
    } else if (error == ENOMEM) {
        what += ": no thread could be started to wait in";
    }
    return {std::error_code(error, std::system_category()), what};
}

std::system_error open_error(int error, const std::string &path, std::string_view why = {}) {
    std::string what = fmt::format("cannot use {} as a lock", printable(path));
    if (!why.empty()) what += fmt::format(": {}", why);
    return {std::error_code(error, std::system_category()), what};
}

// Opens the lock file and makes it if it is missing, but never through a link that leads to nothing: whoever set that
// link up meant a file that is not there.
int open_file(const std::string &path) {
    for (;;) {
        int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOCTTY);
        if (fd >= 0) return fd;
        if (errno == EISDIR) throw open_error(EISDIR, path, "it is a folder");
        if (errno != ENOENT) throw open_error(errno, path);
        fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
        if (fd >= 0) return fd;
        if (errno != EEXIST) throw open_error(errno, path);
        struct stat status {};
        if (lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode) && stat(path.c_str(), &status) != 0) {
            throw open_error(errno, path, "it is a link to nothing");
        }
    }
}

}  // namespace

// The kernel's lock belongs to the process, so between its threads the gate decides. Shared holders of the process have
// one shared lock of the kernel together: the first takes it, the last gives it back.
class FileLock::File {
  public:
    using Pointer = std::unique_ptr<File, Leave>;
    static Pointer at(const std::string &path);
    static void leave(File *file) noexcept;

    File(int fd, const struct stat &status, const std::string &path)
        : identity_{status.st_dev, status.st_ino},
          kernel_(fd),
          name_(LockName::file(wire::Family::posix_thread, fd, path)) {}
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    ~File() {
        for (const int fd : also_open_) ::close(fd);
    }

    enum class Wait : bool { no, yes };
    // False: somebody has it, or time is up; what else there is, is thrown.
    bool acquire(const FileLock &by, Mode mode, Wait wait, Clock::time_point deadline, const void *caller);
    void give_back(const FileLock &by, Mode mode, const void *caller);

  private:
    LockName *name(const FileLock &by) noexcept { return by.recorded_ == Recorded::yes ? &name_ : nullptr; }
    int lock(Clock::time_point deadline);
    int try_lock();
    void unlock();
    int lock_shared(Clock::time_point deadline);
    int try_lock_shared();
    void unlock_shared();

    using Identity = std::pair<dev_t, ino_t>;
    struct Registry {
        std::mutex mutex;
        std::map<Identity, File *> files;
    };
    static Registry &registry();
    static void before_fork();
    static void after_fork();
    static void after_fork_in_child();

    Identity identity_;
    std::size_t users_ = 0;  // FileLocks; guarded by the registry's mutex
    KernelLock kernel_;
    ProcessGate gate_;
    std::vector<int> also_open_;  // further descriptors: closing one would drop the lock
    LockName name_;
};

void FileLock::Leave::operator()(File *file) const noexcept {
    File::leave(file);
}

FileLock::File::Registry &FileLock::File::registry() {
    static Registry *const registry = [] {  // never destroyed: locks in static objects may outlive it
        auto *made = new Registry;
        pthread_atfork(before_fork, after_fork, after_fork_in_child);
        return made;
    }();
    return *registry;
}

void FileLock::File::before_fork() {
    registry().mutex.lock();
}

void FileLock::File::after_fork() {
    registry().mutex.unlock();
}

// The child has one thread and none of the parent's locks, whatever the memory that it got says.
void FileLock::File::after_fork_in_child() {
    for (auto &[identity, file] : registry().files) file->gate_.reset_in_child();
    registry().mutex.unlock();
}

// Counted and closed under the mutex: a file that is opened anew while the old descriptor is still to be closed would
// lose its lock to that close.
void FileLock::File::leave(File *file) noexcept {
    Registry &all = registry();
    const std::lock_guard guard(all.mutex);
    if (--file->users_ > 0) return;
    all.files.erase(file->identity_);
    delete file;
}

FileLock::File::Pointer FileLock::File::at(const std::string &path) {
    Registry &all = registry();
    const std::lock_guard guard(all.mutex);
    const auto find = [&](const struct stat &status) -> File * {
        const auto known = all.files.find({status.st_dev, status.st_ino});
        return known == all.files.end() ? nullptr : known->second;
    };
    const auto used = [](File *file) {
        ++file->users_;
        return Pointer(file);
    };
    struct stat status {};
    if (stat(path.c_str(), &status) == 0) {
        if (File *file = find(status)) return used(file);
    }
    const int fd = open_file(path);
    if (fstat(fd, &status) != 0) {
        const int error = errno;
        ::close(fd);
        throw open_error(error, path);
    }
    if (File *file = find(status)) {  // the path was given another file in between, one that is in use
        file->also_open_.push_back(fd);
        return used(file);
    }
    auto file = std::make_unique<File>(fd, status, path);
    all.files.emplace(file->identity_, file.get());
    return used(file.release());
}

namespace {

// Undoes what was begun, unless it came to its end: the thread may be cancelled while it asks the kernel.
template <class Undo>
class Unless {
  public:
    explicit Unless(Undo undo) : undo_(undo) {}
    ~Unless() {
        if (!done_) undo_();
    }
    Unless(const Unless &) = delete;
    Unless &operator=(const Unless &) = delete;
    void done() { done_ = true; }

  private:
    Undo undo_;
    bool done_ = false;
};

}  // namespace

// All of this is one function, FileLock's, for the same reason as in kernel_lock.h.

[[gnu::always_inline]] inline int FileLock::File::lock(Clock::time_point deadline) {
    int error = gate_.enter_alone(deadline);
    if (error != 0) return error;
    Unless locked([this] { gate_.leave_alone(); });
    error = kernel_.lock(Mode::exclusive, deadline);
    if (error == 0) locked.done();
    return error;
}

[[gnu::always_inline]] inline int FileLock::File::try_lock() {
    if (!gate_.try_enter_alone()) return EAGAIN;
    const int error = kernel_.try_lock(Mode::exclusive);
    if (error != 0) gate_.leave_alone();
    return error;
}

[[gnu::always_inline]] inline void FileLock::File::unlock() {
    kernel_.unlock();
    gate_.leave_alone();
}

[[gnu::always_inline]] inline int FileLock::File::lock_shared(Clock::time_point deadline) {
    bool first = false;
    int error = gate_.enter_shared(deadline, first);
    if (error != 0 || !first) return error;
    Unless locked([this] { gate_.settle_shared(false); });
    error = kernel_.lock(Mode::shared, deadline);
    if (error != 0) return error;
    locked.done();
    gate_.settle_shared(true);
    return 0;
}

[[gnu::always_inline]] inline int FileLock::File::try_lock_shared() {
    bool first = false;
    if (!gate_.try_enter_shared(first)) return EAGAIN;
    if (!first) return 0;
    const int error = kernel_.try_lock(Mode::shared);
    gate_.settle_shared(error == 0);
    return error;
}

[[gnu::always_inline]] inline void FileLock::File::unlock_shared() {
    if (!gate_.leave_shared()) return;
    kernel_.unlock();
    gate_.left_shared();
}

[[gnu::always_inline]] inline bool FileLock::File::acquire(const FileLock &by, Mode mode, Wait wait,
                                                           Clock::time_point deadline, const void *caller) {
    Call call(name(by), mode, wait == Wait::yes, recording::Clock::system_call, caller);
    int error = 0;
    if (wait == Wait::no) {
        error = mode == Mode::shared ? try_lock_shared() : try_lock();
    } else {
        error = mode == Mode::shared ? lock_shared(deadline) : lock(deadline);
    }
    if (__builtin_expect(error == 0, 1)) {
        call.acquired();
        return true;
    }
    call.failed(error);
    if (error == EAGAIN || error == EACCES || error == ETIMEDOUT) return false;
    throw lock_error(error, by.path_);
}

[[gnu::always_inline]] inline void FileLock::File::give_back(const FileLock &by, Mode mode, const void *caller) {
    const bool held = mode == Mode::shared ? gate_.shared() : gate_.alone();
    if (!held) return;  // in a forked child, by a guard that its parent locked
    Call::release(name(by), mode, caller);
    mode == Mode::shared ? unlock_shared() : unlock();
}

struct FileLock::Opened {
    File::Pointer file;
    std::string path;
    Recorded recorded;
};

FileLock::FileLock(Opened opened)
    : file_(std::move(opened.file)), path_(std::move(opened.path)), recorded_(opened.recorded) {}

FileLock::FileLock(const std::string &path, Recorded recorded) : FileLock(Opened{File::at(path), path, recorded}) {}

Result<FileLock> FileLock::open(const std::string &path, Recorded recorded) {
    try {
        return FileLock(path, recorded);
    } catch (const std::system_error &error) {
        return Error{error.what()};
    }
}

FileLock::FileLock(FileLock &&other) noexcept = default;
FileLock &FileLock::operator=(FileLock &&other) noexcept = default;
FileLock::~FileLock() = default;

void FileLock::lock() {
    file_->acquire(*this, Mode::exclusive, File::Wait::yes, kNoDeadline, __builtin_return_address(0));
}
bool FileLock::try_lock() {
    return file_->acquire(*this, Mode::exclusive, File::Wait::no, {}, __builtin_return_address(0));
}
void FileLock::unlock() {
    file_->give_back(*this, Mode::exclusive, __builtin_return_address(0));
}
void FileLock::lock_shared() {
    file_->acquire(*this, Mode::shared, File::Wait::yes, kNoDeadline, __builtin_return_address(0));
}
bool FileLock::try_lock_shared() {
    return file_->acquire(*this, Mode::shared, File::Wait::no, {}, __builtin_return_address(0));
}
void FileLock::unlock_shared() {
    file_->give_back(*this, Mode::shared, __builtin_return_address(0));
}
bool FileLock::lock_until(Clock::time_point deadline, bool shared) {
    return file_->acquire(*this, shared ? Mode::shared : Mode::exclusive, File::Wait::yes, deadline,
                          __builtin_return_address(0));
}

}  // namespace planloop
