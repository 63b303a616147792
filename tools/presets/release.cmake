# release.cmake - what is shipped: cmake -C tools/presets/release.cmake -S . -B build
set(CMAKE_BUILD_TYPE Release CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
