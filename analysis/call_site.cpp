#include "analysis/call_site.h"

#include <fmt/format.h>

#include <string_view>

namespace planloop::analysis {
namespace {

std::string_view last_part(std::string_view path) {
    return path.substr(path.rfind('/') + 1);  // npos + 1 is 0
}

}  // namespace

std::string call_site_words(const CallSite &site) {
    if (!site.known()) return "?";
    // "transfer(int, int)" says what it is by itself; a C function's name has no parentheses.
    std::string function = site.function;
    if (!function.empty() && function.find('(') == std::string::npos) function += "()";
    if (!site.file.empty() && site.line != 0) {
        return fmt::format("{}{}{}:{}", function, function.empty() ? "" : " at ", last_part(site.file), site.line);
    }
    std::string words =
        fmt::format("{}{}{}+{:#x}", function, function.empty() ? "" : " in ", last_part(site.module), site.offset);
    if (!site.remark.empty()) words += fmt::format(" ({})", site.remark);
    return words;
}

}  // namespace planloop::analysis
