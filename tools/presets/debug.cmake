# debug.cmake - for a debugger: nothing is optimised, the kernels too: cmake -C tools/presets/debug.cmake -S . -B build-debug
set(CMAKE_BUILD_TYPE Debug CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
