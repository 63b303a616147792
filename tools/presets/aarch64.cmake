# aarch64.cmake - the cross compiler, tests under qemu: cmake -C tools/presets/aarch64.cmake -S . -B build-aarch64
#
# Libraries for that system (cmocka, stb) are taken from CMAKE_FIND_ROOT_PATH: .ci/foreign-packages makes such a folder.
set(CMAKE_SYSTEM_NAME Linux CACHE STRING "")
set(CMAKE_SYSTEM_PROCESSOR aarch64 CACHE STRING "")
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc CACHE STRING "")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
