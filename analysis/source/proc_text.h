// Reading /proc. Threads: safe. Errors: what is gone or may not be read is nothing, and errno says why.
#ifndef PLANLOOP_ANALYSIS_SOURCE_PROC_TEXT_H
#define PLANLOOP_ANALYSIS_SOURCE_PROC_TEXT_H

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace planloop::analysis {

// The whole of a small file.
std::optional<std::string> read_proc(const std::string &path);
std::optional<std::string> read_proc_link(const std::string &path);
// Entries of a folder that are numbers: processes, threads, descriptors. Ascending.
std::optional<std::vector<std::int32_t>> numbers_in(const std::string &folder);

// Takes the next word off `rest`; words are parted by spaces and tabs. Empty: there is none.
std::string_view take_word(std::string_view &rest);
// The whole of `word` as a number; `base` 16 takes a leading 0x too.
std::optional<std::int64_t> to_number(std::string_view word, int base = 10);

}  // namespace planloop::analysis

#endif
