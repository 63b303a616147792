# s390x.cmake - a big-endian machine, tests under qemu: cmake -C tools/presets/s390x.cmake -S . -B build-s390x
#
# Libraries for that system (cmocka, stb) are taken from CMAKE_FIND_ROOT_PATH: .ci/foreign-packages makes such a folder.
set(CMAKE_SYSTEM_NAME Linux CACHE STRING "")
set(CMAKE_SYSTEM_PROCESSOR s390x CACHE STRING "")
set(CMAKE_C_COMPILER s390x-linux-gnu-gcc CACHE STRING "")
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-s390x -L /usr/s390x-linux-gnu CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY CACHE STRING "")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
