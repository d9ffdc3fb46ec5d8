// Any bytes as a spool: the reader must neither crash, hang nor take memory without bound.
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "lockcore/spool_reader.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t *data, std::size_t size) {  // NOLINT: libFuzzer's name
    const int fd = memfd_create("spool", MFD_CLOEXEC);
    if (fd == -1) return 0;
    if (write(fd, data, size) == static_cast<ssize_t>(size)) {
        auto reader = planloop::SpoolReader::open("/proc/self/fd/" + std::to_string(fd));
        if (reader) {
            planloop::SpoolRecord record;
            for (std::size_t stream = 0; stream < (*reader)->streams().size(); ++stream) {
                planloop::StreamCursor cursor(stream);
                while (cursor.next(**reader, record)) {
                }
            }
            (*reader)->poll();
        }
    }
    close(fd);
    return 0;
}
