#include "lockcore/file_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/sync/file_lock.hpp>
#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <optional>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "lockcore/process_gate.h"
#include "lockcore/recorder.h"

namespace planloop {
namespace {

using KernelLock = boost::interprocess::file_lock;
using recording::Call;
using recording::LockName;
using recording::Unhooked;
using wire::Mode;

// Boost's file_lock opens its file itself, without O_CLOEXEC. It is one descriptor and nothing else, and a pointer to a
// standard-layout object is one to its first member: so it can be given ours, and closes it.
static_assert(std::is_standard_layout_v<KernelLock> && sizeof(KernelLock) == sizeof(int));
int &descriptor_in(KernelLock &lock) noexcept {
    return reinterpret_cast<int &>(lock);
}

// 0 or errno. Boost tells an interrupted wait as an error; a lock call takes it up again.
template <class Attempt>
int errno_of(Attempt attempt) {
    for (;;) {
        try {
            return attempt() ? 0 : EAGAIN;
        } catch (const boost::interprocess::interprocess_exception &error) {
            const int number = error.get_native_error();
            if (number != EINTR) return number != 0 ? number : EIO;
        }
    }
}

int take(KernelLock &lock, Mode mode) {
    return errno_of([&] { return mode == Mode::shared ? lock.lock_sharable() : lock.lock(), true; });
}
int try_take(KernelLock &lock, Mode mode) {
    return errno_of([&] { return mode == Mode::shared ? lock.try_lock_sharable() : lock.try_lock(); });
}
void drop(KernelLock &lock) {
    const Unhooked unhooked;
    errno_of([&] { return lock.unlock(), true; });
}

// Asks the kernel for a lock in a thread of its own, so that the wait can be given up.
class Asking {
  public:
    Asking(KernelLock &lock, Mode mode) : lock_(lock), mode_(mode) {}

    // 0, ETIMEDOUT, or the errno of what failed.
    int wait_until(FileLock::Clock::time_point deadline) {
        if (const int error = start(); error != 0) return error;
        {
            std::unique_lock guard(mutex_);
            answered_.wait_until(guard, deadline, [&] { return answer_.has_value(); });
        }
        pthread_cancel(thread_);  // harmless when it has its answer
        pthread_join(thread_, nullptr);
        if (answer_) return *answer_;
        const int error = try_take(lock_, mode_);  // cancelled: perhaps just after the kernel granted it
        return error == EAGAIN || error == EACCES ? ETIMEDOUT : error;
    }

  private:
    int start() {
        pthread_attr_t attributes;
        pthread_attr_init(&attributes);
        constexpr std::size_t kStackBytes = std::size_t{256} << 10;  // glibc takes the program's TLS from it
        pthread_attr_setstacksize(&attributes, kStackBytes);
        sigset_t all;
        sigset_t before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);  // the program's handlers belong on its own threads
        const int error = pthread_create(&thread_, &attributes, run, this);
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
        pthread_attr_destroy(&attributes);
        return error;
    }

    // Not noexcept: cancelling unwinds through here.
    static void *run(void *self) {
        auto &me = *static_cast<Asking *>(self);
        const Unhooked unhooked;
        const int answer = take(me.lock_, me.mode_);
        int unused = 0;
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
        const std::lock_guard guard(me.mutex_);
        me.answer_ = answer;
        me.answered_.notify_one();
        return nullptr;
    }

    KernelLock &lock_;
    Mode mode_;
    pthread_t thread_{};
    std::mutex mutex_;
    std::condition_variable answered_;
    std::optional<int> answer_;
};

std::system_error lock_error(int error, const std::string &path) {
    std::string what = fmt::format("cannot lock {}", printable(path));
    if (error == EDEADLK) {
        what += ": it would never end, its holders wait for a lock of this process or thread";
    } else if (error == ENOLCK || error == EOPNOTSUPP || error == ENOSYS || error == EINVAL) {
        what += ": its file system has no locks, or none left";
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
    static std::shared_ptr<File> at(const std::string &path);

    File(int fd, const struct stat &status, const std::string &path)
        : identity_{status.st_dev, status.st_ino}, name_(LockName::file(wire::Family::posix_thread, fd, path)) {
        descriptor_in(kernel_) = fd;
    }
    File(const File &) = delete;
    File &operator=(const File &) = delete;
    ~File() {
        for (const int fd : also_open_) ::close(fd);
    }

    LockName *name(Recorded recorded) noexcept { return recorded == Recorded::yes ? &name_ : nullptr; }
    bool held(Mode mode) const noexcept { return mode == Mode::shared ? gate_.shared() : gate_.alone(); }

    int lock(std::optional<Clock::time_point> deadline);
    int try_lock();
    void unlock();
    int lock_shared(std::optional<Clock::time_point> deadline);
    int try_lock_shared();
    void unlock_shared();

  private:
    using Identity = std::pair<dev_t, ino_t>;
    struct Registry {
        std::mutex mutex;
        std::map<Identity, std::weak_ptr<File>> files;
    };
    static Registry &registry();
    static void before_fork();
    static void after_fork();
    static void after_fork_in_child();
    static void forget(File *file);

    int ask_kernel(Mode mode, std::optional<Clock::time_point> deadline);
    int try_kernel(Mode mode) {
        const Unhooked unhooked;
        return try_take(kernel_, mode);
    }

    Identity identity_;
    KernelLock kernel_;
    ProcessGate gate_;
    std::vector<int> also_open_;  // further descriptors: closing one would drop the lock
    LockName name_;
};

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
    for (auto &[identity, known] : registry().files) {
        const std::shared_ptr<File> file = known.lock();
        if (file == nullptr) continue;
        file->gate_.reset_in_child();
    }
    registry().mutex.unlock();
}

void FileLock::File::forget(File *file) {
    {
        Registry &all = registry();
        const std::lock_guard guard(all.mutex);
        const auto known = all.files.find(file->identity_);
        if (known != all.files.end() && known->second.expired()) all.files.erase(known);
        // Closed while nobody can open the file anew: otherwise the lock that a new one took would go with this one.
        delete file;
    }
}

std::shared_ptr<FileLock::File> FileLock::File::at(const std::string &path) {
    Registry &all = registry();
    const std::lock_guard guard(all.mutex);
    const auto find = [&](const struct stat &status) -> std::shared_ptr<File> {
        const auto known = all.files.find({status.st_dev, status.st_ino});
        return known == all.files.end() ? nullptr : known->second.lock();
    };
    struct stat status {};
    if (stat(path.c_str(), &status) == 0) {
        if (auto file = find(status)) return file;
    }
    const int fd = open_file(path);
    if (fstat(fd, &status) != 0) {
        const int error = errno;
        ::close(fd);
        throw open_error(error, path);
    }
    if (auto file = find(status)) {  // the path was given another file in between, one that is in use
        file->also_open_.push_back(fd);
        return file;
    }
    std::shared_ptr<File> file(new File(fd, status, path), forget);
    all.files[file->identity_] = file;
    return file;
}

int FileLock::File::ask_kernel(Mode mode, std::optional<Clock::time_point> deadline) {
    const Unhooked unhooked;
    if (!deadline) return take(kernel_, mode);
    const int error = try_take(kernel_, mode);
    if (error != EAGAIN && error != EACCES) return error;
    if (*deadline <= Clock::now()) return ETIMEDOUT;
    return Asking(kernel_, mode).wait_until(*deadline);
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

int FileLock::File::lock(std::optional<Clock::time_point> deadline) {
    int error = gate_.enter_alone(deadline);
    if (error != 0) return error;
    Unless locked([this] { gate_.leave_alone(); });
    error = ask_kernel(Mode::exclusive, deadline);
    if (error == 0) locked.done();
    return error;
}

int FileLock::File::try_lock() {
    if (!gate_.try_enter_alone()) return EAGAIN;
    const int error = try_kernel(Mode::exclusive);
    if (error != 0) gate_.leave_alone();
    return error;
}

void FileLock::File::unlock() {
    drop(kernel_);
    gate_.leave_alone();
}

int FileLock::File::lock_shared(std::optional<Clock::time_point> deadline) {
    bool first = false;
    int error = gate_.enter_shared(deadline, first);
    if (error != 0 || !first) return error;
    Unless locked([this] { gate_.settle_shared(false); });
    error = ask_kernel(Mode::shared, deadline);
    if (error != 0) return error;
    locked.done();
    gate_.settle_shared(true);
    return 0;
}

int FileLock::File::try_lock_shared() {
    bool first = false;
    if (!gate_.try_enter_shared(first)) return EAGAIN;
    if (!first) return 0;
    const int error = try_kernel(Mode::shared);
    gate_.settle_shared(error == 0);
    return error;
}

void FileLock::File::unlock_shared() {
    if (!gate_.leave_shared()) return;
    drop(kernel_);
    gate_.left_shared();
}

struct FileLock::Opened {
    std::shared_ptr<File> file;
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

bool FileLock::acquire(bool shared, Wait wait, Clock::time_point deadline, const void *caller) {
    const Mode mode = shared ? Mode::shared : Mode::exclusive;
    Call call(file_->name(recorded_), mode, wait != Wait::none, recording::Clock::system_call, caller);
    const std::optional<Clock::time_point> until = wait == Wait::until ? std::optional(deadline) : std::nullopt;
    int error = 0;
    if (wait == Wait::none) {
        error = shared ? file_->try_lock_shared() : file_->try_lock();
    } else {
        error = shared ? file_->lock_shared(until) : file_->lock(until);
    }
    if (error == 0) {
        call.acquired();
        return true;
    }
    call.failed(error);
    if (error == EAGAIN || error == EACCES || error == ETIMEDOUT) return false;
    throw lock_error(error, path_);
}

void FileLock::give_back(bool shared, const void *caller) {
    const Mode mode = shared ? Mode::shared : Mode::exclusive;
    if (!file_->held(mode)) return;  // in a forked child, by a guard that its parent locked
    Call::release(file_->name(recorded_), mode, caller);
    shared ? file_->unlock_shared() : file_->unlock();
}

void FileLock::lock() {
    acquire(false, Wait::for_ever, {}, __builtin_return_address(0));
}
bool FileLock::try_lock() {
    return acquire(false, Wait::none, {}, __builtin_return_address(0));
}
void FileLock::unlock() {
    give_back(false, __builtin_return_address(0));
}
void FileLock::lock_shared() {
    acquire(true, Wait::for_ever, {}, __builtin_return_address(0));
}
bool FileLock::try_lock_shared() {
    return acquire(true, Wait::none, {}, __builtin_return_address(0));
}
void FileLock::unlock_shared() {
    give_back(true, __builtin_return_address(0));
}
bool FileLock::lock_until(Clock::time_point deadline, bool shared) {
    return acquire(shared, Wait::until, deadline, __builtin_return_address(0));
}

}  // namespace planloop
