// Waits for a lock as Boost does it: boost::interprocess::file_lock::timed_lock asks again and again.
//
//   boost_locker PATH MILLISECONDS       prints "locked" or "gave up"
#include <boost/date_time/posix_time/posix_time_types.hpp>
#include <boost/interprocess/sync/file_lock.hpp>
#include <cstdio>
#include <cstdlib>

int main(int argc, char **argv) {
    if (argc != 3) return 2;
    boost::interprocess::file_lock lock(argv[1]);
    const auto until = boost::posix_time::microsec_clock::universal_time() +
                       boost::posix_time::milliseconds(std::strtol(argv[2], nullptr, 10));
    const bool locked = lock.timed_lock(until);
    std::puts(locked ? "locked" : "gave up");
    if (locked) lock.unlock();
    return 0;
}
