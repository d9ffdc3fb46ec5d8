// A lock between programs that lives in a file, and records itself.
//
//   planloop::FileLock lock("/var/lib/tool/lock");     // made if missing
//   std::unique_lock guard(lock, 2s);                  // or scoped_lock, shared_lock, Boost's guards
//   if (!guard) ...                                    // two seconds were not enough
//
// It stands on boost::interprocess::file_lock, a POSIX record lock on the whole file, so it excludes every program that
// locks the file in that way: Boost's own file_lock, fcntl(F_SETLK), lockf(3). What Boost's lacks, this one does:
//
//   - Threads of one process exclude each other, whichever FileLock of that file they use. (To the kernel a process
//     is one owner.) A thread that asks again for what it holds gets an error, not a hang.
//   - It is not lost when the same program opens and closes the lock file through another FileLock. (POSIX drops all
//     locks of a process when it closes any descriptor of the file, fcntl(2).) There is one descriptor for each file in
//     a process; it is closed with the last FileLock of that file. Code that opens and closes the lock file by itself
//     still drops the lock: do not.
//   - Waiting with a time-out costs no processor time (kernel_lock.h tells how). Boost's timed_lock tries again and
//     again.
//   - Request, acquisition, failure and release are recorded, with who, when, wait and hold (recorder.h).
//   - Its descriptor is closed on exec. A forked child holds nothing, as POSIX has it, and may use the object.
//
// Errors: std::system_error. EDEADLK: the kernel found that the holders wait, directly or not, for a lock of this
// process (or the thread holds it already). Opening: a path that is a folder, a link to nothing, may not be written;
// locking: a file system without locks. ENOMEM: a wait with a time-out needs a thread, and none could be started.
// open() gives the same as a Result. An interrupted wait (EINTR) is taken up again.
//
// Threads: safe, but for moving and destroying. unlock() by the thread that locked. Converting between shared and
// exclusive is not offered: POSIX does it, but lets two converters deadlock; a thread that holds a shared lock may take
// it again, shared, but would wait for itself if it asked for it exclusively. Signals: not async-signal-safe.
// Cancellation: every wait is a cancellation point, and who leaves there leaves without the lock. Times: any duration
// and clock (deadline.h). Lifetime: nobody may unlink the lock file while somebody uses it, or two hold two files.
// Cost: an uncontended pair is within 1.2 times that of boost::interprocess::file_lock.
#ifndef PLANLOOP_LOCKCORE_FILE_LOCK_H
#define PLANLOOP_LOCKCORE_FILE_LOCK_H

#include <chrono>
#include <memory>
#include <string>

#include "lockcore/deadline.h"
#include "lockcore/result.h"

namespace planloop {

class FileLock {
  public:
    using Clock = SteadyClock;

    enum class Recorded : bool { no, yes };

    // Makes the file (0600) if it is missing, but no folder.
    explicit FileLock(const std::string &path, Recorded recorded = Recorded::yes);
    static Result<FileLock> open(const std::string &path, Recorded recorded = Recorded::yes);
    FileLock(FileLock &&other) noexcept;
    FileLock &operator=(FileLock &&other) noexcept;
    FileLock(const FileLock &) = delete;
    FileLock &operator=(const FileLock &) = delete;
    ~FileLock();  // must not be locked through this object

    void lock();
    bool try_lock();
    void unlock();
    template <class Rep, class Period>
    bool try_lock_for(const std::chrono::duration<Rep, Period> &wait) {
        return lock_until(deadline_after(wait), false);
    }
    template <class OtherClock, class Duration>
    bool try_lock_until(const std::chrono::time_point<OtherClock, Duration> &when) {
        return lock_until(deadline_at(when), false);
    }

    void lock_shared();
    bool try_lock_shared();
    void unlock_shared();
    template <class Rep, class Period>
    bool try_lock_shared_for(const std::chrono::duration<Rep, Period> &wait) {
        return lock_until(deadline_after(wait), true);
    }
    template <class OtherClock, class Duration>
    bool try_lock_shared_until(const std::chrono::time_point<OtherClock, Duration> &when) {
        return lock_until(deadline_at(when), true);
    }

    // What boost::interprocess::scoped_lock and sharable_lock call. `Time` is boost::posix_time::ptime, UTC.
    template <class Time>
    bool timed_lock(const Time &when) {
        return when.is_pos_infinity() ? (lock(), true) : try_lock_until(from_ptime(when));
    }
    void lock_sharable() { lock_shared(); }
    bool try_lock_sharable() { return try_lock_shared(); }
    void unlock_sharable() { unlock_shared(); }
    template <class Time>
    bool timed_lock_sharable(const Time &when) {
        return when.is_pos_infinity() ? (lock_shared(), true) : try_lock_shared_until(from_ptime(when));
    }

    const std::string &path() const noexcept { return path_; }

  private:
    struct Opened;
    explicit FileLock(Opened opened);

    template <class Time>
    static auto from_ptime(const Time &when) {
        using Utc = std::chrono::time_point<std::chrono::system_clock, std::chrono::microseconds>;
        if (when.is_special()) return Utc();  // neg_infin, not_a_date_time: over
        const auto since = when - Time(typename Time::date_type(1970, 1, 1));
        return Utc(std::chrono::microseconds(since.total_microseconds()));
    }
    bool lock_until(Clock::time_point deadline, bool shared);

    class File;  // of one inode, shared by all FileLocks of it in the process
    struct Leave {
        void operator()(File *file) const noexcept;
    };
    std::unique_ptr<File, Leave> file_;
    std::string path_;
    Recorded recorded_ = Recorded::yes;
};

}  // namespace planloop

#endif
