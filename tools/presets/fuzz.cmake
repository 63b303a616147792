# fuzz.cmake - the fuzzers, with the sanitizers: cmake -C tools/presets/fuzz.cmake -S . -B build-fuzz, then build fuzzers
set(CMAKE_C_COMPILER clang CACHE STRING "")
set(RESNET_FUZZ ON CACHE BOOL "")
set(CMAKE_C_FLAGS_RELEASE "-O1 -DNDEBUG" CACHE STRING "") # kernels with sanitizers take minutes at -O3
set(RESNET_SANITIZE address,undefined,float-cast-overflow CACHE STRING "")
set(RESNET_WERROR ON CACHE BOOL "")
