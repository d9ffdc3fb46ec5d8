// The style and the scripts of the report page, as they are in page/; made into a source file by CMake.
#ifndef PLANLOOP_ANALYSIS_EXPORT_PAGE_ASSETS_H
#define PLANLOOP_ANALYSIS_EXPORT_PAGE_ASSETS_H

#include <string_view>

namespace planloop::analysis {

extern const std::string_view kPageStyle;
extern const std::string_view kPageScript;

}  // namespace planloop::analysis

#endif
