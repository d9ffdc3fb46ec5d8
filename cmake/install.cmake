# Install, export and package.
#
#   bin/planloop    finds the library below by its own place, so the tree can be moved
#   lib/<arch>/planloop/libplanloop_preload.so    see interpose/CMakeLists.txt
#   include/planloop, lib/<arch>/libplanloop_lockcore.a, lib/<arch>/cmake/planloop    for programs that link
#   planloop::lockcore after find_package(planloop)

include(CMakePackageConfigHelpers)

if(TARGET planloop)
  install(TARGETS planloop RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endif()

set_target_properties(planloop_options PROPERTIES EXPORT_NAME options)
set_target_properties(planloop_sanitize PROPERTIES EXPORT_NAME sanitize)
set_target_properties(planloop_wire PROPERTIES EXPORT_NAME wire)
set(exported planloop_options planloop_sanitize planloop_wire)
if(TARGET planloop_lockcore)
  set_target_properties(planloop_lockcore PROPERTIES EXPORT_NAME lockcore)
  list(APPEND exported planloop_lockcore)
endif()
install(TARGETS ${exported} EXPORT planloop ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(
  DIRECTORY ${PROJECT_SOURCE_DIR}/lockcore
  DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/planloop
  FILES_MATCHING
  PATTERN "*.h"
  PATTERN "*.inc")

set(config_dir ${CMAKE_INSTALL_LIBDIR}/cmake/planloop)
install(EXPORT planloop NAMESPACE planloop:: FILE planloopTargets.cmake DESTINATION ${config_dir})
configure_package_config_file(cmake/planloopConfig.cmake.in ${PROJECT_BINARY_DIR}/planloopConfig.cmake
                              INSTALL_DESTINATION ${config_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/planloopConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/planloopConfig.cmake ${PROJECT_BINARY_DIR}/planloopConfigVersion.cmake
        DESTINATION ${config_dir})

set(CPACK_GENERATOR DEB TGZ)
set(CPACK_PACKAGE_CONTACT "planloop developers <planloop@localhost>")
set(CPACK_PACKAGE_VENDOR planloop)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION devel)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
include(CPack)
