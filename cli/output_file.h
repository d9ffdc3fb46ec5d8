// Where a command's data goes: stdout, or a file that appears whole or not at all. It is written under another name in
// the same folder, brought to the disk and renamed; what could not be finished is removed.
//
// Errors: one line that names the file; a failed write is kept and told by finish(). Threads: one user per object.
#ifndef PLANLOOP_CLI_OUTPUT_FILE_H
#define PLANLOOP_CLI_OUTPUT_FILE_H

#include <optional>
#include <string>
#include <string_view>

#include "lockcore/result.h"

namespace planloop::cli {

class OutputFile {
  public:
    // No path, or "-": stdout. A file that exists is an error unless `replace`; a device or a pipe is written to as it
    // is.
    static Result<OutputFile> open(const std::optional<std::string> &path, bool replace);
    OutputFile(OutputFile &&other) noexcept;
    OutputFile &operator=(OutputFile &&) = delete;
    OutputFile(const OutputFile &) = delete;
    OutputFile &operator=(const OutputFile &) = delete;
    ~OutputFile();

    // Buffered. False once writing has failed; then it does nothing.
    bool write(std::string_view text);
    // The file is there, whole, once this has succeeded.
    Result<void> finish();

  private:
    OutputFile() = default;
    bool flush();
    Error failed(int error) const;

    std::string path_, aside_;  // empty: stdout; `aside_` empty: written in place
    std::string buffer_;
    int fd_ = -1;
    int error_ = 0;  // errno of the first failure
    bool replace_ = false;
};

}  // namespace planloop::cli

#endif
