# install.cmake - what cmake --install puts where, and the Debian package of it.
include(CMakePackageConfigHelpers)

set(package ${CMAKE_CURRENT_LIST_DIR})
set(configs ${CMAKE_INSTALL_LIBDIR}/cmake/resnet)

install(TARGETS resnet_static resnet_shared EXPORT resnet)
install(FILES include/resnet.h TYPE INCLUDE)
install(EXPORT resnet NAMESPACE resnet:: FILE resnetTargets.cmake DESTINATION ${configs})
configure_package_config_file(${package}/resnetConfig.cmake.in resnetConfig.cmake INSTALL_DESTINATION ${configs})
write_basic_package_version_file(resnetConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/resnetConfig.cmake ${CMAKE_CURRENT_BINARY_DIR}/resnetConfigVersion.cmake
        DESTINATION ${configs})

# Found from where it lies, so that an installed tree may be moved.
file(RELATIVE_PATH prefix_from_pc ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig ${CMAKE_INSTALL_PREFIX})
string(REGEX REPLACE "/$" "" prefix_from_pc ${prefix_from_pc})
configure_file(${package}/resnet.pc.in resnet.pc @ONLY)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/resnet.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES ${package}/libresnet.3 DESTINATION ${CMAKE_INSTALL_MANDIR}/man3)
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR} RENAME copyright)
install(FILES tools/resnet.py DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet)

# The converter, its parts and the labels that it knows, as they lie to each other here.
install(PROGRAMS tools/convert.py tools/dump_torch.py DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet/tools)
install(FILES tools/get_model.sh DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet/tools)
install(DIRECTORY tools/checkpoints DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet/tools FILES_MATCHING PATTERN "*.py"
        PATTERN __pycache__ EXCLUDE)
install(FILES models/imagenet_classes.txt DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet/models)
if(TARGET resnet)
  install(TARGETS resnet)
  install(FILES models/default.resnet DESTINATION ${CMAKE_INSTALL_DATADIR}/resnet)
  install(FILES ${package}/resnet.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  install(FILES ${package}/resnet.bash DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions RENAME resnet)
  install(FILES ${package}/_resnet DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
endif()

# cpack -G DEB: a package named resnet of all of this, which depends on libc6 alone, or on libjpeg62-turbo too.
set(CPACK_PACKAGE_CONTACT "The libresnet authors <libresnet@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "image classification with residual networks on the CPU")
set(CPACK_PACKAGE_DESCRIPTION "A program that says what is on photographs, in f32, bf16 or int8,
 with a model that knows ten things; the C library that it is made of,
 its header and its manual.")
set(CPACK_STRIP_FILES ON)
set(CPACK_PRE_BUILD_SCRIPTS ${package}/debian.cmake)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_PACKAGE_SUGGESTS "python3-numpy, python3-h5py, curl") # of the converter
set(CPACK_DEBIAN_PACKAGE_GENERATE_SHLIBS ON)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${package}/triggers)
include(CPack)
