# What every target shares, as targets and not as global flags.
#
#   planloop_options   language level, include root, warnings: for all code, the preloaded library included
#   planloop_sanitize  sanitizers: for all code except the preloaded library, which runs inside foreign programs and
#                      must need libc alone

add_library(planloop_options INTERFACE)
target_compile_features(planloop_options INTERFACE cxx_std_20)
target_include_directories(planloop_options INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                      $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/planloop>)
set(planloop_warnings
    -Wall
    -Wextra
    -Wpedantic
    -Wshadow
    -Wconversion
    -Wsign-conversion
    -Wold-style-cast)
if(PLANLOOP_WERROR)
  list(APPEND planloop_warnings -Werror)
endif()
target_compile_options(planloop_options INTERFACE "$<BUILD_INTERFACE:${planloop_warnings}>")

add_library(planloop_sanitize INTERFACE)
if(PLANLOOP_SANITIZE)
  set(planloop_sanitizers -fsanitize=${PLANLOOP_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  if(PLANLOOP_SANITIZE MATCHES "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # It warns of fences, which it does not model. The one we have orders two reads of what other processes write.
    list(APPEND planloop_sanitizers -Wno-tsan)
  endif()
  target_compile_options(planloop_sanitize INTERFACE "$<BUILD_INTERFACE:${planloop_sanitizers}>")
  target_link_options(planloop_sanitize INTERFACE "$<BUILD_INTERFACE:-fsanitize=${PLANLOOP_SANITIZE}>")
endif()
