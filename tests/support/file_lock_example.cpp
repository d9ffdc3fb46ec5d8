// The example of README: a program that shares a file with others. A test compiles and runs it.

#include <chrono>
#include <fstream>
#include <iostream>
#include <mutex>

#include "lockcore/file_lock.h"
#include "lockcore/operation_trace.h"

int main(int argc, char **argv) {
    const std::string path = argc > 1 ? argv[1] : "counter";
    planloop::start_operation_trace("count");  // what the recording calls this work
    planloop::FileLock lock(path + ".lock");   // made if missing; throws if it cannot be
    const std::unique_lock guard(lock, std::chrono::seconds(2));
    if (!guard) return 1;  // two seconds were not enough
    int count = 0;
    std::ifstream(path) >> count;
    std::ofstream(path) << count + 1 << '\n';
    std::cout << count + 1 << '\n';
}
